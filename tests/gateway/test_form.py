"""The contract of the form over HTTP; the job itself is a fake."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from avatar.form.fields import OPTION_FIELDS
from avatar.form.parse import SEND_A_FILE
from avatar.limits import Limits
from avatar.options import ExtendMode, FaceOrder, Generator, Options, TrimMode
from avatar.request import Background, Color
from tests.support.gateway_fakes import FakeRender, Serve, form, leftovers

BOUNDARY = "b0undary"
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
SEND_A_FORM = "send the form as multipart/form-data, with face_file and audio_file as parts"
FIELDS = ("face_file", "audio_file", "avatarFileType", "background")


def part(disposition: str, value: str) -> bytes:
    return f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n".encode()


async def rejection(client: httpx.AsyncClient, parts: dict) -> str:
    response = await client.post("/", files=parts)
    assert response.status_code == 400, response.text
    assert response.json().keys() == {"detail"}
    return response.json()["detail"]


async def test_a_form_is_answered_with_the_mp4_itself(client: httpx.AsyncClient) -> None:
    response = await client.post("/", files=form())
    assert response.status_code == 200
    assert response.content == b"a face|a speech"
    assert response.headers["content-type"] == "application/mp4"
    assert response.headers["content-length"] == "15"
    assert "accept-ranges" not in response.headers


async def test_ping_responds_like_the_original_service(client: httpx.AsyncClient) -> None:
    response = await client.get("/ping")
    assert (response.status_code, response.json()) == (200, {"pong": "-"})


async def test_the_files_have_fixed_names_in_a_folder_of_the_request(
    client: httpx.AsyncClient, render: FakeRender, work: Path
) -> None:
    await client.post("/", files=form(face_file=("../../face.png", b"f"), audio_file=("/etc/passwd", b"s")))
    (request,) = render.requests
    assert (request.face_path, request.audio_path) == (request.folder / "face", request.folder / "speech")
    assert work in request.folder.parents
    assert leftovers(work) == []


async def test_the_job_has_the_id_of_the_request(client: httpx.AsyncClient, render: FakeRender) -> None:
    await client.post("/", files=form(), headers={"X-Request-ID": "caller-7"})
    assert render.requests[0].id == "caller-7"


@pytest.mark.parametrize("name", ["face_file", "audio_file"])
async def test_a_missing_file_is_named(client: httpx.AsyncClient, name: str, work: Path) -> None:
    assert await rejection(client, form(**{name: None})) == f"{name}: the field is missing"
    assert leftovers(work) == []


@pytest.mark.parametrize("value", [None, ""])
async def test_the_two_texts_have_defaults(client: httpx.AsyncClient, render: FakeRender, value: str | None) -> None:
    response = await client.post("/", files=form(avatarFileType=value, background=value))
    assert response.content == b"a face|a speech"
    (request,) = render.requests
    assert (request.is_still, request.background) == (True, Background.FROM_INPUT)


@pytest.mark.parametrize("name", ["face_file", "audio_file"])
async def test_an_empty_file_is_named(client: httpx.AsyncClient, name: str, work: Path) -> None:
    assert await rejection(client, form(**{name: ("file", b"")})) == f"{name}: the file is empty"
    assert leftovers(work) == []


@pytest.mark.parametrize("name", ["face_file", "audio_file"])
async def test_a_file_input_left_blank_in_a_browser_is_named(client: httpx.AsyncClient, name: str) -> None:
    body = b"".join(part(f'name="{field}"; filename=""', "") for field in FIELDS if field == name)
    body += b"".join(
        part(f'name="{field}"' + ('; filename="f"' if "file" in field else ""), "x")
        for field in FIELDS
        if field != name
    )
    response = await client.post("/", content=body + f"--{BOUNDARY}--\r\n".encode(), headers=MULTIPART)
    assert (response.status_code, response.json()["detail"]) == (400, f"{name}: the file is empty")


@pytest.mark.parametrize("name", ["face_file", "audio_file"])
async def test_text_in_place_of_a_file_is_named(client: httpx.AsyncClient, name: str) -> None:
    assert await rejection(client, form(**{name: "a path, perhaps"})) == f"{name}: {SEND_A_FILE}"


@pytest.mark.parametrize(
    ("kind", "accepted"),
    [("application/octet-stream", True), ("image/png", True), ("Image/PNG", True), ("text/plain", False), ("", False)],
)
async def test_a_file_without_a_filename_is_one_if_its_type_is_not_text(
    client: httpx.AsyncClient, kind: str, accepted: bool
) -> None:
    # as the package form-data of Node sends a Buffer
    head = f'name="face_file"\r\nContent-Type: {kind}' if kind else 'name="face_file"'
    body = part(head, "a face") + part('name="audio_file"; filename="s"', "a speech")
    response = await client.post("/", content=body + f"--{BOUNDARY}--\r\n".encode(), headers=MULTIPART)
    assert (
        response.content == b"a face|a speech" if accepted else response.json()["detail"] == f"face_file: {SEND_A_FILE}"
    )


@pytest.mark.parametrize("name", ["avatarFileType", "background"])
async def test_a_file_in_place_of_text_is_named(client: httpx.AsyncClient, name: str, work: Path) -> None:
    assert await rejection(client, form(**{name: ("x.txt", b"png")})) == f"{name}: send text here, not a file"
    assert leftovers(work) == []


@pytest.mark.parametrize("name", FIELDS)
async def test_a_duplicate_field_is_named(client: httpx.AsyncClient, name: str) -> None:
    parts = [*form().items(), (name, form()[name])]
    response = await client.post("/", files=parts)
    assert (response.status_code, response.json()["detail"]) == (400, f"{name}: duplicate field; send it once")


async def test_fields_of_other_names_are_ignored(client: httpx.AsyncClient) -> None:
    response = await client.post("/", files={"first": (None, "x" * 5000), **form(), "last": ("x.bin", b"x" * 5000)})
    assert response.content == b"a face|a speech"


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "png", "PNG", "JPeG", ".jpg", " png "])
async def test_an_image_extension_makes_a_still(client: httpx.AsyncClient, render: FakeRender, extension: str) -> None:
    await client.post("/", files=form(avatarFileType=extension, background="Blue"))
    assert (render.requests[0].is_still, render.requests[0].background) == (True, Background.BLUE)


@pytest.mark.parametrize("extension", ["mp4", "webm", "gif", "jpgx", " ", "../../etc/passwd", "mp4; rm -rf /", "視頻"])
async def test_any_other_extension_makes_a_video_and_never_becomes_part_of_a_path(
    client: httpx.AsyncClient, render: FakeRender, work: Path, extension: str
) -> None:
    response = await client.post("/", files=form(avatarFileType=extension))
    assert response.status_code == 200
    (request,) = render.requests
    assert not request.is_still
    assert (request.face_path.name, request.audio_path.name) == ("face", "speech")
    assert leftovers(work) == []


@pytest.mark.parametrize("background", list(Background))
async def test_every_background_of_the_contract_is_accepted(
    client: httpx.AsyncClient, render: FakeRender, background: Background
) -> None:
    await client.post("/", files=form(background=background.value))
    assert render.requests[0].background is background


@pytest.mark.parametrize("value", ["white", "WHITE", "wHiTe"])
async def test_a_background_is_accepted_in_any_case(client: httpx.AsyncClient, render: FakeRender, value: str) -> None:
    await client.post("/", files=form(background=value))
    await client.post("/", files=form(background="from input"))
    assert [request.background for request in render.requests] == [Background.WHITE, Background.FROM_INPUT]


@pytest.mark.parametrize(
    ("value", "quoted"),
    [("Pink", "'Pink'"), (" ", "' '"), ("x" * 999, f"'{'x' * 40}...'"), ("a\nb", r"'a\nb'")],
)
async def test_an_unknown_color_is_named_with_the_allowed_ones(
    client: httpx.AsyncClient, render: FakeRender, value: str, quoted: str
) -> None:
    detail = await rejection(client, form(background=value))
    assert (
        detail == f"background: {quoted} is not one of From Input, White, Black, Green, Red, Blue, Transparent, #rrggbb"
    )
    assert render.requests == []


@pytest.mark.parametrize("background", ["no colour at all", " "])
async def test_the_background_of_a_video_may_have_any_value(
    client: httpx.AsyncClient, render: FakeRender, background: str
) -> None:
    response = await client.post("/", files=form(avatarFileType="mp4", background=background))
    assert response.status_code == 200
    assert not render.requests[0].options.background_video


async def test_an_image_that_is_declared_as_a_video_keeps_its_background(
    client: httpx.AsyncClient, render: FakeRender
) -> None:
    assert (await client.post("/", files=form(avatarFileType="mp4", background="Red"))).status_code == 200
    assert render.requests[0].background is Background.RED
    assert not render.requests[0].is_still


async def test_a_form_without_options_gets_the_behavior_of_the_original_service(
    client: httpx.AsyncClient, render: FakeRender
) -> None:
    await client.post("/", files=form())
    await client.post("/", files=form(**{option.name: "" for option in OPTION_FIELDS}))
    await client.post("/", files=form(**{option.name: option.default_text for option in OPTION_FIELDS}))
    assert [request.options for request in render.requests] == [Options()] * 3


async def test_options_reach_the_job(client: httpx.AsyncClient, render: FakeRender) -> None:
    await client.post("/", files=form(pads="0,20,0,0", face="left", model="wav2lip_gan", length="bounce,keep"))
    (request,) = render.requests
    assert request.options == Options(
        pads=(0, 20, 0, 0),
        face=FaceOrder.LEFT,
        model=Generator.WAV2LIP_GAN,
        extend=ExtendMode.BOUNCE,
        trim=TrimMode.KEEP,
    )


async def test_an_invalid_option_is_named(client: httpx.AsyncClient, render: FakeRender) -> None:
    assert await rejection(client, form(blend="soft")) == "blend: expected original or feather; got 'soft'"
    assert await rejection(client, form(fps=("file", b"25"))) == "fps: send text here, not a file"
    assert render.requests == []


async def test_an_unknown_field_is_ignored_unless_forms_are_strict(serve: Serve) -> None:
    odd = form(colour="blue", **{"a/b\n": "x"})
    async with serve() as client:
        assert (await client.post("/", files=odd)).status_code == 200
    async with serve(strict_form=True) as client:
        assert await rejection(client, odd) == "'colour': unknown field"
        assert await rejection(client, form(qualty="draft")) == "'qualty': unknown field; did you mean quality?"
        assert (await client.post("/", files=form(fps="30"))).status_code == 200


async def test_ignored_fields_are_named_in_a_header_and_in_the_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    response = await client.post("/", files=form(qualty="draft", Background="Red", **{"a, b\r\nX: ü" + "x" * 99: "1"}))
    assert response.status_code == 200
    *plain, odd = response.headers["x-avatar-ignored-fields"].split(", ")
    assert plain == ["qualty", "Background"]
    assert odd.isascii() and odd.startswith("a%2C%20b")
    (line,) = (message for message in caplog.messages if message.startswith("ignored unknown fields: "))
    assert "qualty; did you mean quality?, Background; did you mean background?, " in line
    assert "\n" not in line
    rejected = await client.post("/", files=form(qualty="draft", fps="none"))
    assert (rejected.status_code, rejected.headers["x-avatar-ignored-fields"]) == (400, "qualty")
    assert "x-avatar-ignored-fields" not in (await client.post("/", files=form())).headers


async def test_at_most_twenty_ignored_fields_are_named(client: httpx.AsyncClient) -> None:
    response = await client.post("/", files=form(**{f"odd-{n}": "x" for n in range(50)}))
    assert response.headers["x-avatar-ignored-fields"].count(",") == 19


async def test_the_limits_of_the_settings_reach_the_job(serve: Serve, render: FakeRender) -> None:
    limits = {"max_megapixels": 12, "work_megapixels": 2, "max_speech_seconds": 60, "max_frames": 900, "max_fps": 60}
    async with serve(**limits) as client:
        await client.post("/", files=form())
    assert render.requests[0].limits == Limits(12_000_000, 2_000_000, 60, 900, 60)


async def test_a_value_that_is_too_long_is_named(client: httpx.AsyncClient) -> None:
    assert (
        await rejection(client, form(avatarFileType="x" * 1025))
        == "avatarFileType: the value is longer than 1024 bytes"
    )


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        (None, b"", f"{SEND_A_FORM}; the request has no Content-Type"),
        ("application/json", b"{}", f"{SEND_A_FORM}; got 'application/json'"),
        ("application/x-www-form-urlencoded", b"a=b", f"{SEND_A_FORM}; got 'application/x-www-form-urlencoded'"),
        ("no type", b"x", f"{SEND_A_FORM}; got 'no type'"),
        ("multipart/form-data", b"", "its Content-Type has no boundary"),
        ("multipart/form-data; boundary=", b"", "its Content-Type has no boundary"),
        (f"multipart/form-data; boundary={'b' * 300}", b"", "invalid multipart form: "),
        (MULTIPART["Content-Type"], b"", "it ends before its closing boundary"),
        (MULTIPART["Content-Type"], b"no form at all", "invalid multipart form: "),
        (MULTIPART["Content-Type"], part('name="background"', "Red"), "it ends before its closing boundary"),
        (MULTIPART["Content-Type"], part("nameless", "Red"), "a part has no name"),
        (MULTIPART["Content-Type"], part('name="x"', "x") * 101, "the form has too many fields; at most 100"),
    ],
)
async def test_a_body_that_is_not_a_form_is_rejected(
    client: httpx.AsyncClient, work: Path, content_type: str | None, body: bytes, reason: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    response = await client.post("/", content=body, headers=headers)
    assert response.status_code == 400
    assert reason in response.json()["detail"]
    assert leftovers(work) == []


async def test_a_form_that_ends_inside_a_file_is_rejected(client: httpx.AsyncClient, render: FakeRender) -> None:
    request = client.build_request("POST", "/", files=form(face_file=("face.png", b"f" * 100_000)))
    body = request.read()[:50_000]
    headers = {"Content-Type": request.headers["Content-Type"]}
    response = await client.post("/", content=body, headers=headers)
    assert response.status_code == 400
    assert "ends before its closing boundary" in response.json()["detail"]
    assert render.requests == []


@pytest.mark.parametrize("name", ["face_file", "audio_file"])
async def test_a_file_over_the_limit_is_named_with_the_limit(serve: Serve, work: Path, name: str) -> None:
    async with serve(max_upload_bytes=1000) as client:
        response = await client.post("/", files=form(**{name: ("file", b"x" * 1001)}))
        assert (response.status_code, response.json()) == (
            413,
            {"detail": f"{name}: the file is larger than 1000 bytes"},
        )
        assert leftovers(work) == []


async def test_a_file_exactly_at_the_limit_passes(serve: Serve) -> None:
    async with serve(max_upload_bytes=1000) as client:
        response = await client.post("/", files=form(face_file=("f", b"x" * 1000), audio_file=("s", b"y" * 1000)))
    assert response.content == b"x" * 1000 + b"|" + b"y" * 1000


async def test_a_content_length_over_the_limit_is_rejected_before_the_body_is_read(serve: Serve) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async with serve(max_upload_bytes=1000) as client:
        headers = MULTIPART | {"Content-Length": str(3 * 1024 * 1024)}
        response = await client.post("/", content=body(), headers=headers)
    assert response.status_code == 413
    assert "1000 bytes" in response.json()["detail"]


async def test_a_body_of_unknown_length_is_rejected_at_the_limit_too(serve: Serve, work: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield part('name="junk"; filename="junk"', "")[:-2]
        for _ in range(100):
            yield b"x" * 65536

    async with serve(max_upload_bytes=1000) as client:
        response = await client.post("/", content=body(), headers=MULTIPART)
        assert response.status_code == 413
        assert leftovers(work) == []


async def test_large_files_arrive_whole(client: httpx.AsyncClient) -> None:
    face, speech = bytes(range(256)) * 12_000, b"\r\n--almost a boundary\r\n" * 50_000
    response = await client.post("/", files=form(face_file=("f", face), audio_file=("s", speech)))
    assert response.content == face + b"|" + speech


@pytest.mark.parametrize(("method", "path", "status"), [("PUT", "/", 405), ("GET", "/nowhere", 404)])
async def test_wrong_methods_and_paths_get_an_error_of_the_same_form(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    assert isinstance(response.json()["detail"], str)


async def test_a_background_may_be_any_color_or_transparent(client: httpx.AsyncClient, render: FakeRender) -> None:
    await client.post("/", files=form(background="#00A0ff"))
    await client.post("/", files=form(background="Transparent"))
    assert [request.background for request in render.requests] == [Color((0, 160, 255)), Background.TRANSPARENT]
    for wrong in ("#00a0f", "00a0ff", "#00a0fg"):
        assert "#rrggbb" in await rejection(client, form(background=wrong))


async def test_an_image_may_be_sent_as_the_background(client: httpx.AsyncClient, render: FakeRender) -> None:
    await client.post("/", files=form(background_file=("beach.jpg", b"a beach")))
    (request,) = render.requests
    assert request.background_file == request.folder / "backdrop"
    await client.post("/", files=form(background_file=("", b"")))  # as a browser sends a blank one
    assert render.requests[1].background_file is None
    detail = await rejection(client, form(background_file="text"))
    assert detail == f"background_file: {SEND_A_FILE}"


async def test_a_saved_video_has_a_name_with_the_id_of_the_request(client: httpx.AsyncClient) -> None:
    response = await client.post("/", files=form(), headers={"X-Request-ID": "order-7"})
    assert response.headers["content-disposition"] == 'inline; filename="avatar-order-7.mp4"'


async def test_the_background_of_a_video_is_checked_if_it_is_replaced(client: httpx.AsyncClient) -> None:
    video = form(avatarFileType="mp4", background="no colour", background_video="true")
    assert "background: 'no colour' is not one of" in await rejection(client, video)
