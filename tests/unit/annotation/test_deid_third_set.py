"""A third set of sentences, harder than the two halves: short notes, rare names, little context. Its first score, before
anything was mended for it, stands in docs/deidentification.md; some of it still leaks, and this test counts how much."""

from __future__ import annotations

import re

from annotation.core import Item, Kind, Turn
from annotation.deid import Deidentifier

SENTENCES = """\
The lady, [[Greta Lundgren]], slipped on ice on [[2 February]].
Referral letter from [[Dr Anil Deshpande]], [[Queens Road Surgery]].
[[Mrs P. Achterberg]] is allergic to penicillin and was last seen in [[Groningen]].
name [[kofi boateng]] dob [[4/4/61]] c/o chest tightness
CXR for [[Yusupov]] shows right basal consolidation.
Can you compare the X-ray of my son [[Mateo]] from [[last March 3rd]]?
[[Hanneke]] has had a cough for two weeks.
Path report #[[SP-21-9931]] for [[Ms Imogen Tredwell]].
Discharge summary: [[TREDWELL IMOGEN]], ward 4B, discharged [[14.11.2022]]
He works as a welder at [[Kvaerner Shipyard]].
My uncle [[Rustam Aliyev]], aged [[97]], fell yesterday.
Contact the next of kin, [[Solveig]], on [[+47 22 85 50 50]].
Pager [[5521]] for the on-call registrar.
Sample barcode [[0099128831]] was mislabelled.
The referring vet was [[Dr. Quill]].
Insurance: [[TK 8812 90 331]]
Chart [[88-1204]] reviewed by [[N. Farouk, RN]].
cc [[Prof. Ottoline Vane]], [[ovane@uni.example.edu]]
She is the wife of our colleague [[Benedikt Aigner]].
Ambulance unit [[A-4471]] brought him from [[Sutherland]].
Consent signed by [[Folasade Akinwande]] on [[Friday 3/7]].
The patient, Mr [[Abernethy]], has a cyst.
Reading room: [[(617) 555-0143]], ask for [[Dana]].
[[Zebedee Quist]] DOB [[1 Jan 1990]] MR brain: normal.
Post from user [[@gretalund]]: here is my scan
The tattoo reads [[KAROLINA 1987]].
License plate in the photo: [[WX-771-Q]].
study date [[2019.04.30]] time [[11:42:10]]
[[Whitfield-Osei]] presents with haematuria.
Scan booked under [[Ingeborg Thorvaldsen]], NHS no [[943 476 5919]].
Please address the reply to [[Mr and Mrs Castellanos]].
His twin [[Ezekiel]] has the same cyst.
[[Dr. Maryam al-Khatib]] agreed with the reading.
Came by tram from [[Gamla Stan]] this morning.
The CT of [[Ng]] was unremarkable.
CT abdomen, pt [[Tran, Bao]], F
Hospital: [[Sacred Heart]], bed 12
Born in [[Oaxaca]] in 1971, moved to Texas.
[[Lupita]]: I have pain in the left knee. Doctor: since when?
Key worker [[Siân]] will ring [[01970 555 018]]."""
AT_MOST = 3
"""Planted identifiers that may leave, of 57."""
_NO_NAMES = {"dr", "mr", "mrs", "ms", "prof", "rn", "and", "last", "time", "heart"}


def test_no_more_than_a_few_of_the_hard_ones_are_sent() -> None:
    by, leaked, planted = Deidentifier(), [], 0
    for line in SENTENCES.splitlines():
        identifiers = re.findall(r"\[\[(.*?)\]\]", line)
        planted += len(identifiers)
        text = re.sub(r"\[\[|\]\]", "", line)
        result = by.clean(Item("i", Kind.CHAT, (Turn("user", (text,)),), ("Thank you.",)))
        left = re.sub(r"\[[A-Z_]+\]", "", str(result.item.dialogue[0].parts[0]))
        leaked += [
            identifier for identifier in identifiers if result.held is None and _remains(identifier, left)
        ]
    assert planted > 50
    assert len(leaked) <= AT_MOST, leaked


def _remains(identifier: str, text: str) -> bool:
    words = [w for w in re.findall(r"\w+", identifier) if len(w) > 1 and w.lower() not in _NO_NAMES]
    return any(re.search(rf"\b{word}\b", text) for word in words)
