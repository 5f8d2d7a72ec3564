"""What stands before or after a name: titles, labels, phrases, relations, credentials, verbs."""

from __future__ import annotations

import re

TITLE = re.compile(
    r"\b(?:Mr|Mrs|Ms|Mx|Dr|Drs|Prof|Sr|Sra|Srta|Dott|Dra|Mme|Mlle|Herr|Frau|Senora?|mr|mrs|ms|dr|prof|MRS|PROF)\b\.?[ \t]+"
    r"|\b(?:Mr|Mrs|Ms|Dr)\.(?=[A-Z])"
)
RANK = re.compile(
    r"\b(?:Miss|Mister|Professor|Doctor|Doktor|Nurse|Sergeant|Sgt\.?|Captain|Capt\.?|Lt\.?|Reverend|Rev\.?|Rabbi|Imam"
    r"|Sheikh|Sir|Dame|Lady|Lord|Judge|Officer|Midwife|Matron|Monsieur|Madame|MR\.?|DR\.?|MS\.?|Sister|Baby|Aunt|Uncle"
    r"|doctor|professor|nurse|miss|mister)[ \t]+(?:[Dd]r\.? )?"
)
LABEL = re.compile(
    r"\b(?:patient(?:'s)?(?: full)?(?: name)?|pt\.?(?: name)?|(?:sur|fore|last |first |given |family |middle |maiden |full )?"
    r"names?(?: of (?:the )?(?:patient|child|mother|next of kin))?|alias|aka|a\.k\.a\.|subject|client|resident|contact"
    r"|referring(?: physician| doctor| clinician| provider| consultant| md)?|referrer|requested by|requesting physician"
    r"|ordering(?: physician| provider| doctor)?|ordered by|attending(?: physician| doctor| surgeon)?|consultant|gp|pcp"
    r"|(?:reporting |interpreting |reading )?radiologist|(?:reporting )?pathologist|(?:assistant )?surgeon|an(?:a?esthetist"
    r"|esthesiologist)|technologist|technician|sonographer|radiographer|operator|physician|provider|clinician|doctor"
    r"|author|witness(?:ed by)?|interpreter|guardian|next of kin|nok|emergency contact|informant|mother|father|wife|husband"
    r"|daughter|son|spouse|employer|responsible person|signature|signed|cc|attn|attention|to|from)\s?(?:[:=]|\s-\s)\s*",
    re.IGNORECASE,
)
PHRASE = re.compile(
    r"\b(?:(?:seen|examined|reviewed|reported|dictated|signed|verified|authenticated|transcribed|read|interpreted|performed"
    r"|operated(?: on)?|referred|written|prepared|approved|co-?signed|assessed|treated|supervised|confirmed|witnessed|ordered"
    r"|accompanied|attended|brought in|requested|acknowledged|done|drawn)(?: off| over| electronically| out)?\s*by\s*:?\s+"
    r"|(?:discussed|reviewed|consulted|communicated|confirmed|shared|agreed|talked|came|lives)(?: over the phone)?\s+(?:with|by)\s+"
    r"|(?:referred|relayed|communicated|handed over|dictated|shown|explained|reported|talked|attention|addressed)\s+to\s+"
    r"|(?:my|her|his|the patient's|patient) name is\s+|\bnamed\s+|\bcalled\s+|\bknown as\s+|\bI am\s+|\bI'm\s+|\bthis is\s+"
    r"|\bdear\s+|(?:regards|sincerely|faithfully|thanks|thank you|wishes|signed|hi|hello),?\s+|spoke (?:to|with)\s+"
    r"|speaking (?:to|with)\s+|\bask for\s+|\binformed\s+|\bnotified\s+|\bcontact\s+|\bc/o\s+|\bon behalf of\s+|\bper\s+|\battn\.?\s+)",
    re.IGNORECASE,
)
PERSON = re.compile(
    r"\b(?:(?:grand|step|god)?(?:daughter|son|mother|father|child)|wife|husband|mom|mum|mummy|dad|daddy|sister|brother|aunt|uncle"
    r"|cousin|niece|nephew|partner|friend|carer|caregiver|neighbou?r|guardian|spouse|fiancee?|twin|baby|patient|pt|client"
    r"|colleague|nurse|midwife|gentleman|lady|woman|man|girl|boy|resident|consultant|physiotherapist|pharmacist|gp|doctor"
    r"|sonographer|radiographer|technologist|surgeon|radiologist|pathologist|[a-z]+ologist|interpreter|student|intern|registrar|name|worker)"
    r"(?:'s name is)?[,:]?[ \t]+[(\"']?",
    re.IGNORECASE,
)
CREDENTIAL = re.compile(
    r",?[ \t]+(?:M\.?D\b|MBBS\b|MBChB\b|Ph\.?D\b|RN\b|FRC[A-Z]\b|MRC[A-Z]+\b|FAC[A-Z]\b|DDS\b|DPM\b|PA-C\b|CRNA\b|PharmD\b|BSN\b)"
    r"|,[ \t]+(?:DO|NP|PA|RT|LPN|MS)\b"
)
CARET = re.compile(
    r"[A-Za-z][A-Za-z'-]{0,40}(?:[ ][A-Za-z'-]{1,40}){0,2}(?:\^{1,4}[A-Za-z][A-Za-z'.-]{0,40}(?: [A-Z][A-Za-z'-]{1,40}\b(?=\^))?){1,4}"
)
_HUMAN = (
    r"says|said|told|asks|asked|phoned|called|thinks|wants|wanted|lives|works|denies|denied|complains|complained|agreed"
    r"|consented|dictated|signed|smokes|drinks|weighs|feels"
)
HUMAN = re.compile(rf"[ \t]+(?:{_HUMAN})\b")
"""What people alone do: a disease that is named after somebody does not."""
VERB = re.compile(
    r"(?:'s)?,?[ \t]+(?:(?:is|was) (?:a|an|the) |(?:is|was) (?:seen|admitted|discharged|referred|born|brought|taken|told|scanned"
    r"|diagnosed|operated|transferred|reviewed|called|accompanied|aged)\b|aged? \d|\(?\d{2,3}[ ,-]?(?:y|year|yr)"
    rf"|(?:{_HUMAN})\b|presents\b|presented\b|reports\b|reported\b|states\b|stated\b|underwent\b|attended\b|takes\b|came\b|went\b"
    r"|returned\b|developed\b|had been\b|has been\b|has had\b|has a\b|had a\b|fell\b|noticed\b"
    r"|reviewed\b|performed\b|examined\b|will\b|would\b|can\b|should\b)"
)
