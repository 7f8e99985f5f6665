"""The run folder that Illumina's instruments write and other programs read.

::

    RunInfo.xml, RunParameters.xml
    Data/Intensities/L001/s_1_1101.locs
    Data/Intensities/BaseCalls/L001/C1.1/s_1_1101.bcl
    Data/Intensities/BaseCalls/L001/s_1_1101.filter
    InterOp/                                               daemon.outputs.interop
    RunCompletionStatus.xml, SequenceComplete.txt, RTAComplete.txt, CopyComplete.txt     in this order, at the end
"""
