"""Which DICOM attributes stay, and what becomes of them. Everything else goes, private attributes first.

Safer than the other way round: PS3.15 table E.1-1 lists what must go, and a new edition lists more. A test holds this
list against the table's edition in dicom-anonymizer: nothing that the table removes stays.
"""

from __future__ import annotations


def _set(keywords: str) -> frozenset[str]:
    return frozenset(keywords.split())


EMPTIED = _set("""PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime AccessionNumber ReferringPhysicianName
    StudyID""")
"""Action Z: an image needs them (type 2), so they stay without a value."""

REMAPPED = _set("""SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID ReferencedSOPInstanceUID
    SynchronizationFrameOfReferenceUID MediaStorageSOPInstanceUID DimensionOrganizationUID ConcatenationUID""")
"""Action U: replaced by a keyed hash, the same for the same UID."""

CLASSES = _set("SOPClassUID ReferencedSOPClassUID MediaStorageSOPClassUID TransferSyntaxUID")
"""UIDs that stay where DICOM itself registers them."""

NUMBERS = _set("""SamplesPerPixel Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation PlanarConfiguration NumberOfFrames
    PixelAspectRatio SmallestImagePixelValue LargestImagePixelValue PixelPaddingValue PixelPaddingRangeLimit
    RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor
    LUTDescriptor WindowCenter WindowWidth RescaleSlope RescaleIntercept PixelSpacing ImagerPixelSpacing
    NominalScannedPixelSpacing ImageOrientationPatient ImagePositionPatient SliceThickness SpacingBetweenSlices
    SliceLocation KVP ExposureTime XRayTubeCurrent Exposure DistanceSourceToDetector DistanceSourceToPatient
    GantryDetectorTilt DataCollectionDiameter ReconstructionDiameter EchoTime RepetitionTime InversionTime FlipAngle
    MagneticFieldStrength EchoTrainLength NumberOfAverages EchoNumbers NumberOfTemporalPositions PixelBandwidth
    InstanceNumber SeriesNumber AcquisitionNumber LossyImageCompressionRatio RecommendedDisplayFrameRate FrameTime
    DiffusionBValue BodyPartThickness CompressionForce""")

TERMS = _set("""Modality PhotometricInterpretation ImageType ConversionType BurnedInAnnotation RecognizableVisualFeatures
    LossyImageCompression LossyImageCompressionMethod VOILUTFunction PresentationLUTShape RescaleType PixelPresentation
    ViewPosition Laterality ImageLaterality PatientOrientation PatientPosition BodyPartExamined ScanningSequence
    SequenceVariant ScanOptions MRAcquisitionType PresentationIntentType SpecificCharacterSet ModalityLUTType
    PixelIntensityRelationship VolumetricProperties VolumeBasedCalculationTechnique FrameType""")
"""Code strings: values that are short, in capitals, and no names."""

BYTES = _set("""PixelData FloatPixelData DoubleFloatPixelData LUTData RedPaletteColorLookupTableData
    GreenPaletteColorLookupTableData BluePaletteColorLookupTableData SegmentedRedPaletteColorLookupTableData
    SegmentedGreenPaletteColorLookupTableData SegmentedBluePaletteColorLookupTableData""")

SEQUENCES = _set("""ModalityLUTSequence VOILUTSequence ReferencedImageSequence SourceImageSequence SharedFunctionalGroupsSequence
    PerFrameFunctionalGroupsSequence PixelMeasuresSequence PlaneOrientationSequence PlanePositionSequence
    FrameVOILUTSequence PixelValueTransformationSequence FrameAnatomySequence MRImageFrameTypeSequence
    CTImageFrameTypeSequence""")
"""Their items are cleaned by the same lists."""

KEPT = NUMBERS | TERMS | BYTES | SEQUENCES | CLASSES
"""Action K or C, by kind of value; each kind has its own check."""
