"""What a mark says: the words, the IPTC term and the XMP packet of a synthetic video.

Sources:
    https://cv.iptc.org/newscodes/digitalsourcetype/ - the terms of the IPTC (2024-10-23).
    https://iptc.org/std/videometadatahub/ - Video Metadata Hub 1.6: the property is `Iptc4xmpExt:DigitalSourceType`.
    XMP Specification, Part 3: Storage in files - in an MP4, XMP is a `uuid` box at the top level.
"""

from __future__ import annotations

import lipsync

GENERATOR = "talking-avatar"
# "Edited using Generative AI": the caller's image or video, in which a model draws the mouth of every frame again
# (inpainting, which the definition of the term names). `trainedAlgorithmicMedia` is media that a model made altogether.
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
COMMENT = "Synthetic media: a generative model made this face speak"
SOURCE_TYPE_TAG = "DIGITAL_SOURCE_TYPE"  # of a WebM, for which no way to hold XMP is defined

_XMP_UUID = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
    ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
    '  <rdf:Description rdf:about=""\n'
    '    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"\n'
    '    xmlns:xmp="http://ns.adobe.com/xap/1.0/"\n'
    f'    Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCE_TYPE}"\n'
    f'    xmp:CreatorTool="{GENERATOR} {lipsync.__version__}"/>\n'
    " </rdf:RDF>\n"
    "</x:xmpmeta>\n"
    '<?xpacket end="r"?>'
)


def comment(stand_ins: tuple[str, ...], *, is_marked: bool) -> str:
    """Return the comment of the container; empty if there is nothing to say.

    Args:
        stand_ins: names of the models that ran on stand-in checkpoints.
        is_marked: whether the comment says that the video is synthetic.
    """
    made_with = f"Made with stand-in checkpoints: {', '.join(stand_ins)}" if stand_ins else ""
    return ". ".join(filter(None, (COMMENT if is_marked else "", made_with)))


def xmp_box() -> bytes:
    """Return the box of an MP4 that holds the XMP packet."""
    packet = _XMP.encode()
    size = 8 + len(_XMP_UUID) + len(packet)
    return size.to_bytes(4, "big") + b"uuid" + _XMP_UUID + packet
