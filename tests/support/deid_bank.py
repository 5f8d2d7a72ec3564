"""What a bank of templates and values holds, and the half of it that the rules were written against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bank:
    """Templates with slots (`{name}`), values for them, and clean texts with terms that must survive.

    A slot's name is its category, with a suffix where there are several forms (`date_iso`). Values are lists to
    choose from, or patterns: `#` a digit, `@` a capital letter, `~` a small one.
    """

    values: dict[str, tuple[str, ...]]
    sentences: dict[str, tuple[str, ...]]
    dialogues: tuple[tuple[str, ...], ...]
    clean: tuple[tuple[str, tuple[str, ...]], ...]
    burned: tuple[str, ...]
    harmless: tuple[str, ...] = ("R", "L")


DEVELOPMENT = Bank(
    values={
        "name": (
            "Maria Gonzalez",
            "Oluwaseun Adeyemi",
            "Nguyen Van Minh",
            "Siobhan O'Brien",
            "Hiroshi Tanaka",
            "Fatima Al-Sayed",
            "Björn Lindqvist",
            "Priya Raghunathan",
            "Jean-Luc Moreau",
            "Zhang Wei",
            "Kwame Mensah",
            "Ivana Kovačević",
            "Mehmet Yılmaz",
            "Aroha Ngata",
            "Łukasz Wiśniewski",
            "José Ramírez-Ortiz",
            "Thandiwe Nkosi",
            "David Cohen",
            "Anneke van der Berg",
            "Park Ji-woo",
        ),
        "surname": (
            "Gonzalez",
            "Adeyemi",
            "O'Brien",
            "Tanaka",
            "Lindqvist",
            "Raghunathan",
            "Moreau",
            "Mensah",
            "Smith",
            "Parkinson",
            "Wilson",
            "Kovačević",
        ),
        "given": ("Maria", "Siobhan", "Hiroshi", "Fatima", "Priya", "Kwame", "Ivana", "Thandiwe", "David"),
        "caret": ("GONZALEZ^MARIA", "O'BRIEN^SIOBHAN^A", "Tanaka^Hiroshi^^Dr", "VAN DER BERG^ANNEKE"),
        "caps": ("GONZALEZ, MARIA", "COHEN, DAVID", "TANAKA, HIROSHI"),
        "date": (
            "12/03/2021",
            "2021-03-12",
            "12.03.2021",
            "12-Mar-2021",
            "March 12, 2021",
            "12th of March 2021",
            "Mar 12 2021",
            "3/12/21",
            "20210312",
            "2021-03-12T14:35:10",
            "Friday, 12 March 2021",
            "March 2021",
            "12 March",
            "03/2021",
            "the 3rd of May 2019",
            "2021/03/12 09:15",
        ),
        "age": ("92", "95", "101", "90", "107"),
        "phone": (
            "(555) 014-7788",
            "555-014-7788",
            "+44 20 7946 0958",
            "+1-555-014-7788",
            "01632 960 983",
            "+49 30 901820",
            "555.014.7788",
        ),
        "fax": ("(555) 014-7799", "+44 20 7946 0999", "555-014-7799"),
        "email": (
            "m.gonzalez@example.org",
            "siobhan_obrien@mail.example.co.uk",
            "h.tanaka+clinic@example.jp",
        ),
        "ssn": ("123-45-6789", "987 65 4321"),
        "record": ("00482913", "A-778201", "RX48-22910", "H123456", "448-22-9017-1"),
        "health_plan": ("XQW884512009", "1EG4-TE5-MK73", "GRP-55201", "993 441 207"),
        "account": ("4001-22987-1", "DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111", "7782019"),
        "licence": ("D1234567", "1234567893", "BG1234563", "C0-448812"),
        "vehicle": ("1HGCM82633A004352", "7ABC123", "LK19 XTR", "B-MW 4412"),
        "device": ("PJN482913S", "SN-0094421-B", "00:1A:2B:3C:4D:5E", "W1DR01-7781"),
        "url": (
            "https://portal.example.org/p/48291",
            "www.example-clinic.org/results?id=77",
            "http://10.0.0.7/pacs/view",
        ),
        "ip": ("192.168.14.22", "10.44.0.7", "2001:0db8:85a3:0000:0000:8a2e:0370:7334"),
        "biometric": ("FP-88213-A", "IR220194", "vp_77120"),
        "photo": ("IMG_20210312_gonzalez.jpg", "maria_face_front.png", "DSC00412.JPG"),
        "other": (
            "550e8400-e29b-41d4-a716-446655440000",
            "1.2.840.113619.2.55.3.604688",
            "PT-2021-00482",
            "8842019937",
            "STUDY4421A77",
        ),
        "place": (
            "12 Oak Street, Springfield, IL 62704",
            "48 Rosewood Avenue",
            "Hauptstraße 12",
            "14 rue des Lilas",
            "PO Box 4412",
        ),
        "city": ("Springfield", "Kumasi", "Leeds", "Guadalajara", "Heidelberg", "Nagoya"),
        "hospital": (
            "St. Mary's Hospital",
            "Riverside Medical Center",
            "University of Heidelberg",
            "Kumasi General Hospital",
        ),
        "zip": ("62704", "94110-1234"),
    },
    sentences={
        "name": (
            "Patient: {name}. Chest radiograph without acute findings.",
            "{name} is a 54-year-old woman with chronic cough and a nodule in the right upper lobe.",
            "Mr. {surname} was referred for MRI of the lumbar spine; disc bulge at L4/L5.",
            "The study was reviewed with Dr {name} from cardiology.",
            "Findings were discussed with the patient's daughter {given}, who understands the plan.",
            "Electronically signed by {name}, MD.",
            "PatientName={caret} T2 weighted axial image.",
            "Reported by: {caps}. Impression: Bosniak II cyst.",
            "dr. {surname} wants to know whether the mass has grown.",
            "{surname} reports worsening dyspnea on exertion since the last visit.",
            "Does the scan of {name} show a pneumothorax?",
        ),
        "place": (
            "She lives in {city} and works on a farm.",
            "Address: {place}. Presents with fever and cough.",
            "Transferred from {hospital} with subdural hemorrhage.",
            "Home address is {place}; zip code {zip}.",
            "The patient moved here from {city} last year.",
            "CT performed at {hospital} shows a 12 mm nodule.",
        ),
        "date": (
            "Chest film of {date} shows a small left effusion.",
            "Seen on {date} for follow-up of Hodgkin lymphoma.",
            "Comparison: {date}. No interval change.",
            "DOB: {date}. Weight 70 kg.",
            "The biopsy from {date} was benign; repeat in 6 months.",
        ),
        "age": (
            "A {age}-year-old man with dementia and a hip fracture.",
            "She is {age} years old and lives independently.",
            "{age} y/o female, fall from standing height.",
            "Age: {age}. Indication: chest pain.",
            "Patient aged {age} with aortic stenosis.",
        ),
        "phone": (
            "Please call the family at {phone} with the result.",
            "Tel: {phone}. Impression: normal study.",
            "Her mobile is {phone}.",
            "Contact number {phone} if the pain returns.",
        ),
        "fax": ("Fax: {fax}", "Send the report by fax to {fax} please.", "Fax number {fax}; grade 3 reflux."),
        "email": (
            "Email the images to {email}.",
            "Contact: {email} for the full report.",
            "Her e-mail is {email}",
        ),
        "ssn": (
            "SSN {ssn}, admitted with sepsis.",
            "Social security number: {ssn}.",
            "The number {ssn} is on the form.",
        ),
        "record": (
            "MRN {record}: follow-up of pulmonary nodule.",
            "Medical record number: {record}.",
            "Patient ID {record} underwent CT of the abdomen.",
            "Accession {record}, two views of the chest.",
            "Hospital no. {record}",
        ),
        "health_plan": (
            "Insurance member ID {health_plan}.",
            "Policy number: {health_plan}, covered.",
            "Medicare {health_plan} on file.",
            "Health plan no {health_plan}",
        ),
        "account": (
            "Account number {account} was billed.",
            "IBAN: {account}.",
            "Invoice {account} is still open.",
            "Patient account #{account}",
        ),
        "licence": (
            "Driver's license {licence} shown at admission.",
            "NPI {licence}.",
            "DEA number: {licence}",
            "License no. {licence} verified.",
        ),
        "vehicle": (
            "Car crash; license plate {vehicle}.",
            "VIN: {vehicle}, driver unrestrained.",
            "Vehicle registration {vehicle}, found at scene.",
        ),
        "device": (
            "Pacemaker serial number {device} was interrogated.",
            "S/N: {device}.",
            "Device ID {device} implanted in the left chest.",
            "The MAC address {device} belongs to the scanner.",
        ),
        "url": ("Images are at {url}.", "See {url} for the earlier study", "Link: {url}"),
        "ip": ("Sent from {ip} to the archive.", "IP address: {ip}", "The workstation {ip} failed."),
        "biometric": (
            "Fingerprint ID {biometric} confirmed identity.",
            "Retinal scan: {biometric}.",
            "Voiceprint {biometric} matched.",
        ),
        "photo": (
            "Face photo attached: {photo}",
            "See {photo} for the facial lesion.",
            "Uploaded {photo} and two radiographs.",
        ),
        "other": (
            "Study identifier {other}.",
            "Reference: {other}, please compare.",
            "Unique code: {other}",
            "Series UID {other} shows a mass.",
        ),
    },
    dialogues=(
        (
            "user: My name is {name} and I was born on {date}. What does my chest x-ray show?",
            "assistant: Thank you. The heart size is normal and there is no effusion.",
            "user: My doctor, Dr. {surname}, said there is a shadow. You can reach me at {phone}.",
            "assistant: I see a 5 x 4 mm nodule in the right upper lobe.",
        ),
        (
            "user: Patient: {name}, MRN {record}. Compare with the film of {date}.",
            "assistant: Compared with the previous film the effusion is smaller.",
            "user: And the report must go to {email}, fax {fax}.",
            "assistant: Impression: resolving left pleural effusion, grade 1.",
        ),
        (
            "user: Mrs {surname} from {city} fell at home. She is {age} years old.",
            "assistant: There is a fracture of the left femoral neck, Garden III.",
            "user: Does {surname} need surgery?",
            "assistant: Displaced Garden III fractures are usually treated surgically.",
        ),
    ),
    clean=(
        (
            "T2-weighted image with a 5 x 4 mm lesion at L4/L5, grade 3 stenosis.",
            ("T2", "5 x 4 mm", "L4/L5", "grade 3"),
        ),
        ("Parkinson disease with tremor; no sign of Lewy body dementia.", ("Parkinson", "Lewy")),
        (
            "Hodgkin lymphoma, Ann Arbor stage II, Reed-Sternberg cells present.",
            ("Hodgkin", "Ann Arbor", "Reed-Sternberg"),
        ),
        ("Blood pressure 120/80 mmHg, heart rate 72/min, SpO2 98%.", ("120/80", "72/min", "98%")),
        (
            "Colles fracture of the distal radius after a fall; Hill-Sachs lesion excluded.",
            ("Colles", "Hill-Sachs"),
        ),
        ("Give metformin 500 mg twice daily and Lipitor 20 mg at night.", ("metformin", "500 mg", "Lipitor")),
        ("Is there a pneumothorax in the right upper lobe? Yes.", ("right upper lobe",)),
        ("Strength 4/5 in the left arm, 2/6 systolic murmur, visual acuity 20/40.", ("4/5", "2/6", "20/40")),
        ("Glasgow Coma Scale 13, Apgar 9, NYHA class III, ECOG 1.", ("Glasgow Coma Scale", "Apgar", "III")),
        (
            "HER2 negative, Ki-67 20%, BRCA1 mutation, CD20 positive, p53 wild type.",
            ("HER2", "Ki-67", "BRCA1", "CD20", "p53"),
        ),
        ("Platelets 250000/uL, WBC 12.4 x 10^9/L, CRP 45 mg/L, HbA1c 7.2%.", ("250000/uL", "12.4", "HbA1c")),
        (
            "A 45-year-old woman with Crohn's disease and Raynaud phenomenon.",
            ("45-year-old", "Crohn", "Raynaud"),
        ),
        (
            "Bell palsy, Horner syndrome and Wilson disease were considered.",
            ("Bell palsy", "Horner", "Wilson"),
        ),
        ("Mass at 2:00, 4 cm from the nipple; BI-RADS 4.", ("2:00", "4 cm", "BI-RADS 4")),
        ("In 2019 he had a stroke; no change since 2020.", ("2019", "2020")),
        ("What modality is shown? A: CT B: MRI C: X-ray D: Ultrasound", ("CT", "MRI", "X-ray", "Ultrasound")),
        ("The picture shows hematoxylin and eosin stained glands, 40x.", ("hematoxylin", "40x")),
        (
            "Follow-up in 3 months, 6 weeks of physiotherapy, day 12 of treatment.",
            ("3 months", "6 weeks", "day 12"),
        ),
        (
            "Impression: No acute cardiopulmonary disease. Findings: Normal heart size.",
            ("No acute", "Normal heart size"),
        ),
        (
            "Kerley B lines and a positive Murphy sign; Foley catheter in place.",
            ("Kerley B", "Murphy", "Foley"),
        ),
        (
            "Generate an axial FLAIR image of a glioblastoma in the left frontal lobe.",
            ("FLAIR", "glioblastoma"),
        ),
        (
            "C5-C6 disc herniation with T1 and STIR signal change, 3 T scanner.",
            ("C5-C6", "T1", "STIR", "3 T"),
        ),
        ("May cause drowsiness. March fracture of the second metatarsal.", ("May cause", "March fracture")),
        ("Patient: 60-year-old man. Name the abnormality.", ("60-year-old", "Name the abnormality")),
        (
            "Sjögren syndrome, Behçet disease, Guillain-Barré syndrome.",
            ("Sjögren", "Behçet", "Guillain-Barré"),
        ),
    ),
    burned=("GONZALEZ MARIA", "MRN 00482913", "DOB 12/03/1956", "St. Mary's Hospital", "ID: H123456"),
)
