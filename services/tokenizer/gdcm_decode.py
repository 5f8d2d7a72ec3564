"""Child process: one compressed frame on standard input, its samples on standard output.

GDCM ends its process on a good share of damaged streams (aborts, now and then a segmentation fault), so it never
runs inside a server. `services.tokenizer.codestream.decode_with_gdcm` starts this file. Input: one line of JSON,
then the frame. Exit status 0 and exactly the expected samples mean success.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import BinaryIO


def main(source: BinaryIO, target: BinaryIO) -> None:
    shape = json.loads(source.readline())
    resource.setrlimit(resource.RLIMIT_AS, (shape["memory"], shape["memory"]))
    resource.setrlimit(resource.RLIMIT_CPU, (shape["seconds"], shape["seconds"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import gdcm  # type: ignore[import-untyped]  # after the limits, which its buffers must respect

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(source.read())
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((shape["columns"], shape["rows"], 1))
    image.SetDataElement(element)
    meaning = gdcm.PhotometricInterpretation.GetPIType(shape["photometric"])
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(meaning))
    if shape["samples"] > 1:
        image.SetPlanarConfiguration(0)
    syntax = gdcm.TransferSyntax.GetTSType(shape["syntax"])
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    stored = shape["precision"]
    image.SetPixelFormat(gdcm.PixelFormat(shape["samples"], shape["bits"], stored, stored - 1, 0))
    target.write(image.GetBuffer().encode("utf-8", "surrogateescape"))


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
