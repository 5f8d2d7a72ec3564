"""Numbers, codes and addresses of the net that point at one person."""

from __future__ import annotations

import re

from annotation.deid.core import Category
from annotation.deid.patterns import Pattern, Patterns

# A number or code with at least one digit, of 3 characters or more; it ends at a space.
CODE = r"(?P<x>(?:(?-i:[A-Z]{1,4})\s(?=\d{3}))?(?=[A-Z/_.-]{0,12}\d)[A-Z0-9][A-Z0-9]*(?:[-/._][A-Z0-9]+){0,7}(?:\s\d{2,12}(?=\s\d{2})|\s\d{3,12}(?!\w|\s?(?:mm|cm|mg|ml)\b)){0,6})(?<=[\w]{2})(?!\w)"
_LONG_CODE = r"(?P<x>(?=[A-Z/_.-]{0,12}\d)(?=[A-Z0-9/._-]{5})[A-Z0-9]+(?:[-/._][A-Z0-9]+){0,7}(?:\s\d{3,12}(?!\w|\s?(?:mm|cm|mg|ml)\b)){0,6})(?!\w)"
_IS = r"\s{0,2}(?:numbers?|no|nos|num|nr|nbr|id|identifier|code|ref(?:erence)?)?\.?\s{0,2}(?:is|was|of|ending(?:\sin)?|reads)?\s{0,2}[-:#=]{0,2}\s{0,2}\(?"
_COMMA = r"(?:,\s(?=(?:id|identifier|no|num|number|code|ref)\b))?"
MUST = r"\s{0,2}(?:(?:numbers?|no|nos|num|nr|id|identifier|code|ref(?:erence)?)\b\.?\s{0,2}(?:is|was|ending(?:\sin)?)?\s{0,2}[:#=]?|[:#=]|is\s)\s{0,2}[:#]?\s{0,2}"


def _known(category: Category, words: str) -> tuple[Pattern, ...]:
    """A word that only stands for such numbers, then one."""
    return (Pattern.of(category, rf"\b(?:{words})(?![A-Z]){_COMMA}{_IS}{CODE}"),)


def _ambiguous(category: Category, words: str) -> tuple[Pattern, ...]:
    """A word of other meanings: "number" or a colon must follow, or a code of five characters and more."""
    return (
        Pattern.of(category, rf"\b(?:{words})(?![A-Z]){MUST}{CODE}"),
        Pattern.of(
            category,
            rf"\b(?:{words})\s{{1,2}}\(?{_LONG_CODE}",
            lambda found: sum(c.isdigit() for c in found["x"]) > 3,
        ),
    )


_PHONE_WORDS = r"tel(?:ephone|efon)?|ph(?:one)?|mobile|cell(?:phone|ular)?|mob|landline|pager|beeper|bleep|extension|ext|contact\snumber|call(?:\s(?:me|him|her|us|them|back))?|reach(?:ed|able)?|text|whatsapp|voicemail|hotline"
_TELEPHONE = r"(?:\+|00)?\(?\d(?:[\s().-]{0,2}\d){5,14}(?:\s?(?:x|ext\.?|extension)\s?\d{1,6})?"
_FAX_NUMBER = rf"(?P<x>{_TELEPHONE}|\d{{3,5}})"
_UNIT = (
    r"\s?(?:/|x\s?10|copies|cells|iu\b|u\b|units?\b|mm|cm|ml|mcl|ul|mg|mcg|ug|kg|g\b|nm|hz|khz|mhz|counts?|cpm|bq|kbq|mbq|gbq|per\b|reads|"
    r"pixels|voxels|patients|people|cases|steps|years|dollars|platelets|leu[ck]ocytes|spermatozoa|sperm|colony|cfu|copies|%|hounsfield|x\d)"
)


def _luhn(found: re.Match[str]) -> bool:
    digits = [int(c) for c in found[0] if c.isdigit()][::-1]
    return (
        13 <= len(digits) <= 19
        and sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)) % 10 == 0
    )


def _phone_like(found: re.Match[str]) -> bool:
    return 7 <= sum(c.isdigit() for c in found[0]) <= 15


def _mixed(found: re.Match[str]) -> bool:
    """Letters and five digits or more, and no public code (trial, article, gene, chemical)."""
    return sum(c.isdigit() for c in found["x"]) > 4 and not re.match(
        r"(?:NCT\d{8}|PMC?\d+|PMID\d+|CVE-|rs\d+|ENS[GTP]\d+|N[MPCG]_\d+|CAS\d+|ISBN|ISRCTN\d+|EUCTR|doi|GSE\d+|CHEMBL\d+)",
        found["x"],
        re.IGNORECASE,
    )


IDENTIFIERS = Patterns(
    (
        Pattern.of(Category.SSN, r"(?<!\w)(?P<x>[x*#]{3}-?[x*#]{2}-?\d{4})(?!\w)"),
        Pattern.of(
            Category.VEHICLE,
            r"\b(?:plates?|registration|vehicle|vrn|vin)(?:\s(?:numbers?|no|reg(?:istration)?|mark|plates?|id))*\.?\s?(?:is|was|reads?)?\s?[:#]?\s?"
            r"(?P<x>(?-i:[A-Z0-9]{1,4}(?:[ -]{1,3}[A-Z0-9]{1,5}){0,3}))(?!\w)",
            lambda f: any(c.isdigit() for c in f["x"]) and len(f["x"]) > 3,
        ),
        Pattern.of(Category.DEVICE, r"(?P<x>\(01\)\d{8,14}(?:\(\d{2}\)[A-Z0-9-]{1,20}){0,4})"),
        Pattern.of(Category.SSN, r"(?<![\w-])(?P<x>\d{3}[- ]\d{2}[- ]\d{4})(?![\w-])"),
        *_known(
            Category.SSN,
            r"ssn|s\.s\.n\.?|social\ssecurity|social\sinsurance|sin\snumber|national\sinsurance|ni\snumber|nino|tax(?:payer)?(?:\sid(?:entification)?|\sfile)?\snumber|tfn|steuernummer|codice\sfiscale|aadhaar|curp|cpf|bsn|personnummer",
        ),
        Pattern.of(
            Category.SSN,
            r"(?<![\w-])(?P<x>[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\s?\d{2}\s?\d{2}\s?\d{2}\s?[A-D])(?!\w)",
            case=True,
        ),
        *_known(
            Category.RECORD,
            r"mrn|m\.r\.n\.?|mr\s?\#|medical\srecords?|health\srecord|hospital\s(?:number|no|id)|hosp\.?\sno|patient\s(?:id|identifier|number|no)|pt\.?\s?(?:id|no|number|\#)|unit\snumber|urn|nhs(?:\s(?:number|no))?|chi\snumber|uhid|cr\snumber|accession|acc(?:ession)?\s?\#|acc\.?\sno|specimen(?:\s(?:id|number|no))|encounter(?:\s(?:id|number|no))|visit\s(?:id|number|no)|order\s(?:id|number|no)|episode\s(?:id|number)|requisition|emr(?:\sid)?|ehr(?:\sid)?|epic\sid|pathology\snumber|lab\s(?:number|no|id)|study\sid|exam(?:ination)?\s(?:id|number|no)|case\s(?:id|number|no)|file\s(?:number|no)|folder\snumber|reference\snumber|ref\sno",
        ),
        *_ambiguous(
            Category.RECORD,
            r"record|chart|case|encounter|visit|specimen|sample|order|file|dossier|referral|barcode|wristband|label|slide|block|our\sref|your\sref|ref",
        ),
        *_known(
            Category.HEALTH_PLAN,
            r"(?:health\s?)?(?:plan|insurance|policy|member(?:ship)?|subscriber|beneficiary|group|payer|payor|claim|certificate\sof\scoverage)\s(?:id|no|number|num|\#)|medicare|medicaid|hicn|mbi|bcbs|bluecross|blue\scross(?:\sblue\sshield)?|aetna|cigna|humana|kaiser|unitedhealth(?:care)?|tricare|ohip|ehic|krankenversichertennummer|prior\sauthori[sz]ation",
        ),
        *_ambiguous(
            Category.HEALTH_PLAN,
            r"insurance|insurer|policy|member(?:ship)?|subscriber|beneficiary|health\splan|plan|group|coverage|payer|claim",
        ),
        *_known(
            Category.ACCOUNT,
            r"(?:bank\s|billing\s|patient\s)?acc(?:oun)?t\.?\s?(?:number|no|id|\#)|iban|invoice|routing(?:\snumber)?|sort\scode|credit\scard|debit\scard|card\snumber|guarantor(?:\s(?:id|number))?|har\s?(?:number|\#)|bill(?:ing)?\s(?:id|number|no)",
        ),
        *_ambiguous(
            Category.ACCOUNT,
            r"account|acct|bank|billing|bill|card|payment|receipt|statement|transaction|visa|mastercard|amex",
        ),
        Pattern.of(
            Category.ACCOUNT,
            r"(?<!\w)(?P<x>[A-Z]{2}\d{2}\s?(?:[A-Z0-9]{4}\s?){2,7}[A-Z0-9]{1,4})(?!\w)",
            case=True,
        ),
        Pattern.of(Category.ACCOUNT, r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])", _luhn),
        *_known(
            Category.LICENCE,
            r"(?:driver'?s?|driving|medical|nursing|pilot'?s?|professional|state|fishing|hunting|gun|firearms?)\s(?:licen[cs]e|permit|certificate)|dl\s?(?:no|number|\#)|lic\.?\s?(?:no|\#)|licen[cs]e\s?(?:no|number|\#|id)|npi|dea(?:\s(?:number|no|reg(?:istration)?))?|gmc(?:\s(?:number|no|ref(?:erence)?))?|nmc\spin|passport|visa\s(?:number|no)|birth\scertificate|death\scertificate|certificate\s(?:number|no|\#|id)|green\scard|id\scard|identity\scard|personalausweis|voter\sid|student\sid|employee\s(?:id|number|no)|badge(?:\s(?:id|number|no))?|service\snumber|military\sid|medical\scouncil(?:\sregistration)?|ahpra",
        ),
        *_ambiguous(Category.LICENCE, r"licen[cs]e|certificate|certification|permit|registration"),
        *_known(
            Category.VEHICLE,
            r"vin|vehicle\sidentification(?:\snumber)?|(?:licen[cs]e|number|registration)\splates?|plates?\s(?:no|number|\#)|car\sregistration|vehicle\s(?:registration|reg|id|number|no|plate)|reg(?:istration)?\s(?:number|no|plate)|tag\snumber|ambulance\s(?:unit|number|no)",
        ),
        Pattern.of(
            Category.VEHICLE,
            r"\b(?:plates?|vehicle|car|van|truck|lorry|taxi|motorcycle|motorbike|ambulance|bus|scooter|sedan|suv|toyota|ford|honda|volkswagen|bmw)\b(?:\s(?:with|bearing|reg(?:istration)?|plates?|number|no|tag|its|whose|the|is|was|reads?))*[\s:#(]{1,3}(?P<x>(?=[A-Z -]{0,4}\d)(?=[\d -]{0,5}[A-Z])[A-Z0-9]{1,4}(?:[ -]?[A-Z0-9]{1,5}){1,3})(?!\w)",
            lambda f: f["x"] == f["x"].upper() and 4 < len(f["x"]) < 18,
        ),
        Pattern.of(
            Category.VEHICLE,
            r"(?<!\w)(?P<x>(?=[A-Z]*\d)(?=\d*[A-Z])[A-HJ-NPR-Z0-9]{9}[A-HJ-NPR-Z0-9]{2}\d{6})(?!\w)",
            case=True,
        ),
        *_known(
            Category.DEVICE,
            r"serial(?:\s(?:no|number|num|id|code|\#))?|s/n|sn\b|ser\.?\sno|imei|udi|mac\saddress|(?:device|implant|pacemaker|icd|stent|valve|prosthesis|scanner|pump|generator|lead|machine|unit|cochlear\simplant|hip|knee|defibrillator|equipment|asset|monitor|probe|console|transmitter)\s(?:serial|id|identifier|s/n|sn|number|no|tag)|lot\s(?:no|number|\#)|batch\s(?:no|number|\#)|catalog(?:ue)?\s(?:no|number|\#)|model\s(?:no|number|\#)|station\s(?:name|id)|ae\stitle|aet",
        ),
        *_ambiguous(
            Category.DEVICE,
            r"serial|device|pacemaker|implant|defibrillator|stimulator|lot|batch|pump|scanner|station|workstation",
        ),
        *_known(
            Category.BIOMETRIC,
            r"(?:fingerprint|finger\sprint|retina(?:l)?(?:\sscan)?|iris(?:\sscan)?|voice\s?print|palm\s?(?:print|vein)|face\s?print|facial\srecognition|face\sid|dna(?:\sprofile|\ssample)?|biometric|thumbprint|gait)(?:\s(?:template|scan|hash|record|profile|data|enrol?lment|sample|signature|match))?\s(?:id|no|number|ref(?:erence)?|code|hash|template|\#)|biometric(?:s)?|fingerprint|voiceprint|faceprint",
        ),
        *_ambiguous(
            Category.BIOMETRIC,
            r"retina(?:l)?\sscan|iris\sscan|palm\sprint|thumbprint|facial\srecognition|dna\sprofile|voice\sprint",
        ),
    )
)

PHONES = Patterns(
    (
        Pattern.of(Category.PHONE, r"(?<!\w)(?P<x>x\d{4,5})\b"),
        Pattern.of(
            Category.FAX,
            rf"\b(?:fax|facsimile|telefax)(?:\s(?:number|no|line|to|at|results\sto|the\sreport\sto|is|it\sto))*[\s.:#]{{0,3}}{_FAX_NUMBER}(?!\w)",
        ),
        Pattern.of(
            Category.PHONE,
            rf"\b(?:{_PHONE_WORDS})(?:\s(?:number|no|is|at|on|to|me|back|via))*[\s.:#]{{0,3}}\(?(?P<x>{_TELEPHONE})(?!\w)",
        ),
        Pattern.of(
            Category.PHONE,
            r"\b(?:ext(?:ension)?|pager|beeper|bleep|bleeped|paged)(?:\s(?:number|no|is|at|on))*[\s.:#]{1,3}(?P<x>\d{2,7})(?!\w|\s?(?:mm|cm|degrees))",
        ),
        Pattern.of(
            Category.PHONE,
            r"(?<![\w.+-])(?P<x>(?:\+|00)\d{1,3}[\s.-]?(?:\(\d{1,4}\)[\s.-]?)?\d(?:[\s.-]?\d){5,12})(?![\w])",
            _phone_like,
        ),
        Pattern.of(
            Category.PHONE,
            r"(?<![\w.-])(?P<x>(?:1[-.\s])?(?:\(\d{3}\)\s?|\d{3}[-.\s])\d{3}[-.\s]\d{4}(?:\s?(?:x|ext\.?)\s?\d{1,6})?)(?!\w|[-.]\d)",
        ),
        Pattern.of(Category.PHONE, r"(?<![\w.-])(?P<x>\(?0\d{2,4}\)?[\s-]\d{3,4}[\s-]?\d{3,4})(?!\w|[-.]\d)"),
        Pattern.of(Category.PHONE, r"(?<![\w.-])(?P<x>0\d(?:[ .-]\d\d){4})(?!\w|[-.]\d)"),
        Pattern.of(Category.PHONE, r"(?<![\w.-])(?P<x>0\d{9,10})(?!\w|[-.]\d)"),
        Pattern.of(
            Category.PHONE,
            r"(?<![\w./-])(?P<x>\d{3}-\d{4})(?!\w|[-./]\d)",
            lambda f: (
                not f.string[f.end() : f.end() + 8]
                .lower()
                .strip()
                .startswith(("mm", "ml", "mg", "cells", "hu", "/", "iu", "kcal", "u/", "ms", "hz", "nm"))
            ),
        ),
    )
)

REST = Patterns(
    (
        Pattern.of(
            Category.OTHER, rf"(?<![\w.,/x-])(?<!PMID )(?<!PMID: )(?P<x>\d{{7,40}})(?!\w|\.\d|,\d|{_UNIT})"
        ),
        Pattern.of(
            Category.OTHER,
            r"(?<![\w.-])(?P<x>\d{3}\s\d{3}\s\d{4}|\d{4}\s\d{4}\s\d{4}(?:\s\d{4})?)(?!\w|\s?(?:mm|ml))",
        ),
        Pattern.of(
            Category.OTHER,
            r"(?<![\w.^-])(?P<x>(?=[A-Z0-9-]{1,40}\d)[A-Z][A-Z0-9]{0,20}(?:-[A-Z0-9]{1,20}){0,5})(?!\w)",
            _mixed,
            case=True,
        ),
        Pattern.of(Category.OTHER, r"(?<![\w.^-])(?P<x>\d{2,8}-\d{3,8}(?:-\d{1,8}){1,3})(?!\w)"),
        Pattern.of(Category.OTHER, r"(?<![\w.^-])(?P<x>\d{2,}[A-Z]{1,4}\d{3,}[A-Z0-9]*)(?!\w)", case=True),
        Pattern.of(Category.OTHER, r"(?<!\w)(?P<x>(?=[a-f]*\d)[0-9a-f]{16,128})(?!\w)"),
        Pattern.of(
            Category.OTHER,
            r"\b(?:user\s?name|login|user\sid|password|pin(?:\scode)?|access\scode|token|api\skey)\s?(?:is|:|=)\s?(?P<x>[^\s,;\ue000]{3,64})",
        ),
        *_known(
            Category.OTHER,
            r"(?:research|trial|participant|subject|randomi[sz]ation|enrol?lment|registry|donor|ticket|tracking|locker|room\skey|invitation|incident|police\sreport|court\scase|docket|inmate|prisoner|booking)\s(?:id|no|number|code|\#)|subject\sid|participant",
        ),
        Pattern.of(
            Category.OTHER,
            r"\b(?:id|identifier|unique\s(?:id|code|number))\s?(?:no|number)?\.?\s?(?:is|:|\#|=)\s{0,2}"
            + CODE,
        ),
    )
)
