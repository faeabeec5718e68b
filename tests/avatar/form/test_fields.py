from dataclasses import fields
from fractions import Fraction

import pytest

from avatar.errors import InvalidField
from avatar.form.fields import OPTION_FIELDS, parse_options
from avatar.form.parse import FILES, TEXTS
from avatar.options import (
    Blend,
    ExtendMode,
    FaceIndex,
    FaceOrder,
    FacePoint,
    Generator,
    NoFace,
    Options,
    Quality,
    TrimMode,
)
from lipsync import tensors


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("model", "wav2lip_gan", Options(model=Generator.WAV2LIP_GAN)),
        ("face", "Largest", Options(face=FaceOrder.LARGEST)),
        ("face", "2", Options(face=FaceIndex(2))),
        ("face", "120, 80", Options(face=FacePoint(120, 80))),
        ("no_face", "keep", Options(no_face=NoFace.KEEP)),
        ("blend", "feather", Options(blend=Blend.FEATHER)),
        ("pads", "1,2,3,4", Options(pads=(1, 2, 3, 4))),
        ("pads", "-1 0 0 5", Options(pads=(-1, 0, 0, 5))),
        ("smooth", "false", Options(smooth=False)),
        ("smooth", "ON", Options()),
        ("box", "10,90,20,80", Options(box=(10, 90, 20, 80))),
        ("box", "-1 -1 -1 -1", Options()),
        ("length", "bounce", Options(extend=ExtendMode.BOUNCE)),
        ("length", "keep", Options(trim=TrimMode.KEEP)),
        ("length", "keep, hold", Options(extend=ExtendMode.HOLD, trim=TrimMode.KEEP)),
        ("fps", "30", Options(fps=Fraction(30))),
        ("fps", "29.97", Options(fps=Fraction(30000, 1001))),
        ("fps", "23.976", Options(fps=Fraction(24000, 1001))),
        ("fps", "60000/1001", Options(fps=Fraction(60000, 1001))),
        ("fps", "12.5", Options(fps=Fraction(25, 2))),
        ("resize_factor", "2", Options(resize_factor=2)),
        ("rotate", "yes", Options(rotate=True)),
        ("crop", "0,-1,10,-1", Options(crop=(0, -1, 10, -1))),
        ("max_height", "720", Options(max_height=720)),
        ("quality", "high", Options(quality=Quality.HIGH)),
    ],
)
def test_a_value_is_parsed(name: str, text: str, expected: Options) -> None:
    assert parse_options({name: text}) == expected


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("model", "wav2lip_hd", "expected wav2lip or wav2lip_gan; got 'wav2lip_hd'"),
        ("face", "16", "expected best, largest, left, right, a number from 0 to 15, or a point x,y; got '16'"),
        ("face", "1,2,3", "or a point x,y; got"),
        ("face", "-1", "a number from 0 to 15"),
        ("no_face", "skip", "expected fail or keep"),
        ("pads", "1,2,3", "four whole numbers (top, bottom, left, right)"),
        ("pads", "1,2,3,4.5", "four whole numbers"),
        ("pads", "0,0,0,999999999999", "to 16384; got"),
        ("smooth", "maybe", "expected true or false"),
        ("box", "10,10,20,80", "top < bottom and left < right"),
        ("box", "-1,10,20,80", "top < bottom"),
        ("length", "loop,bounce", "one of loop, bounce or hold, one of cut or keep, or both"),
        ("length", "forever", "one of loop, bounce or hold"),
        ("fps", "0", "1 to 120 frames per second"),
        ("fps", "1/0", "1 to 120 frames per second"),
        ("fps", "nan", "1 to 120 frames per second"),
        ("fps", "1e1", "1 to 120 frames per second"),
        ("fps", "121", "1 to 120 frames per second"),
        ("fps", "9" * 999, "30000/1001; got '" + "9" * 40 + "...'"),
        ("resize_factor", "0", "expected a whole number from 1 to 16"),
        ("resize_factor", "1_0", "a whole number"),
        ("resize_factor", "٣", "a whole number"),
        ("crop", "50,40,0,-1", "a rectangle"),
        ("crop", "-1,40,0,-1", "a rectangle"),
        ("max_height", "10", "from 64 to 16384; got"),
        ("quality", "best", "expected draft, standard, high or small"),
    ],
)
def test_an_invalid_value_is_rejected_with_what_was_expected(name: str, text: str, reason: str) -> None:
    with pytest.raises(InvalidField) as error:
        parse_options({name: text})
    assert error.value.field == name
    assert reason in error.value.reason


def test_missing_empty_and_written_defaults_are_the_same() -> None:
    assert parse_options({}) == Options()
    assert parse_options({option.name: "  " for option in OPTION_FIELDS}) == Options()
    assert parse_options({option.name: option.default_text for option in OPTION_FIELDS}) == Options()


def test_every_attribute_can_be_set_by_a_field() -> None:
    texts = {
        "model": "wav2lip_gan",
        "face": "left",
        "no_face": "keep",
        "detection": "exact",
        "blend": "feather",
        "pads": "1,2,3,4",
        "smooth": "no",
        "box": "1,2,3,4",
        "length": "hold,keep",
        "fps": "30",
        "resize_factor": "2",
        "rotate": "yes",
        "crop": "1,2,3,4",
        "max_height": "64",
        "quality": "high",
        "background_edge": "soft",
        "background_video": "yes",
    }
    options = parse_options(texts)
    assert texts.keys() == {option.name for option in OPTION_FIELDS}
    for attribute in fields(Options):
        assert getattr(options, attribute.name) != getattr(Options(), attribute.name)


def test_the_written_default_of_a_field_is_its_default() -> None:
    for option in OPTION_FIELDS:
        if option.default_text:
            assert option.parse(option.default_text) == option.default


def test_every_listed_choice_is_accepted() -> None:
    for option in OPTION_FIELDS:
        for choice in option.choices:
            parse_options({option.name: choice})
        assert not option.choices or option.default_text in option.choices


def test_the_streaming_models_have_an_input_for_every_option() -> None:
    assert tuple(option.name for option in OPTION_FIELDS) == tensors.OPTIONS
    inputs = {tensor.name for tensor in tensors.AVATAR.inputs}
    assert inputs == {*FILES, *TEXTS}
    live = {tensor.name for tensor in tensors.LIVE.inputs}
    of_session = {"audio", "pcm", "format", "token", "received"}
    of_conversation = {"sample_rate", "echo", "avatar", "new_sequence", "clear", "segment_end", "rest"}
    assert live == (inputs - {tensors.SPEECH_FILE} - tensors.NOT_LIVE) | of_session | of_conversation
