from dataclasses import fields
from fractions import Fraction

import pytest

from avatar.errors import InvalidField
from avatar.form.parse import FILES, TEXTS
from avatar.options import OPTIONS, Blend, ExtendMode, Generator, NoFace, FaceIndex, Options, FacePoint, Quality, TrimMode, FaceOrder, parse
from lipsync import tensors


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
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
def test_a_value_is_read(name: str, text: str, wanted: Options) -> None:
    assert parse({name: text}) == wanted


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("model", "wav2lip_hd", "wav2lip or wav2lip_gan expected, got 'wav2lip_hd'"),
        ("face", "16", "best, largest, left, right, a number from 0 to 15, or a point x,y expected, got '16'"),
        ("face", "1,2,3", "a point x,y expected"),
        ("face", "-1", "a number from 0 to 15"),
        ("no_face", "skip", "fail or keep expected"),
        ("pads", "1,2,3", "four whole numbers (top, bottom, left, right)"),
        ("pads", "1,2,3,4.5", "four whole numbers"),
        ("pads", "0,0,0,999999999999", "to 16384 expected"),
        ("smooth", "maybe", "true or false expected"),
        ("box", "10,10,20,80", "top < bottom and left < right"),
        ("box", "-1,10,20,80", "top < bottom"),
        ("length", "loop,bounce", "one of loop, bounce or hold, one of cut or keep, or both"),
        ("length", "forever", "one of loop, bounce or hold"),
        ("fps", "0", "1 to 120 frames a second"),
        ("fps", "1/0", "1 to 120 frames a second"),
        ("fps", "nan", "1 to 120 frames a second"),
        ("fps", "1e1", "1 to 120 frames a second"),
        ("fps", "121", "1 to 120 frames a second"),
        ("fps", "9" * 999, "expected, got '" + "9" * 40 + "...'"),
        ("resize_factor", "0", "a whole number from 1 to 16 expected"),
        ("resize_factor", "1_0", "a whole number"),
        ("resize_factor", "٣", "a whole number"),
        ("crop", "50,40,0,-1", "a rectangle"),
        ("crop", "-1,40,0,-1", "a rectangle"),
        ("max_height", "10", "from 64 to 16384 expected"),
        ("quality", "best", "draft, standard, high or small expected"),
    ],
)
def test_a_value_that_does_not_do_is_refused_with_what_was_expected(name: str, text: str, reason: str) -> None:
    with pytest.raises(InvalidField) as error:
        parse({name: text})
    assert error.value.field == name
    assert reason in error.value.reason


def test_left_out_or_empty_or_written_out_the_defaults_are_the_same() -> None:
    assert parse({}) == Options()
    assert parse({option.name: "  " for option in OPTIONS}) == Options()
    assert parse({option.name: option.default for option in OPTIONS}) == Options()


def test_every_attribute_can_be_chosen_by_some_option() -> None:
    written = {option.name: option.default or "64" for option in OPTIONS} | {"length": "loop,cut"}
    chosen = {name for option in OPTIONS for name in option.read(written[option.name])}
    assert chosen == {field.name for field in fields(Options)}


def test_every_listed_choice_is_taken() -> None:
    for option in OPTIONS:
        for choice in option.choices:
            parse({option.name: choice})
        assert not option.choices or option.default in option.choices


def test_the_streaming_models_have_an_input_for_every_option() -> None:
    assert tuple(option.name for option in OPTIONS) == tensors.OPTIONS
    inputs = {tensor.name for tensor in tensors.AVATAR.inputs}
    assert inputs == {*FILES, *TEXTS}
    live = {tensor.name for tensor in tensors.LIVE.inputs}
    assert live == (inputs - {tensors.SPEECH_FILE} - tensors.NOT_LIVE) | {"audio", "pcm", "format"}
