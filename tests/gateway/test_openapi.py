import httpx

from avatar.form.fields import OPTION_FIELDS
from avatar.request import Background


async def test_the_schema_documents_the_form_field_by_field(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    body = schema["paths"]["/"]["post"]["requestBody"]
    assert body["required"]
    reference = body["content"]["multipart/form-data"]["schema"]["$ref"]
    form = schema["components"]["schemas"][reference.rpartition("/")[2]]
    assert form["required"] == ["face_file", "audio_file", "avatarFileType", "background"]
    options = [option.name for option in OPTION_FIELDS]
    assert list(form["properties"]) == [*form["required"], "background_file", *options]
    assert all(form["properties"][option.name]["default"] == option.default_text for option in OPTION_FIELDS)
    assert all(field["description"] for field in form["properties"].values())
    assert form["properties"]["background"]["examples"] == [*(each.value for each in Background), "#00a0ff"]


async def test_the_schema_documents_the_responses(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    responses = schema["paths"]["/"]["post"]["responses"]
    assert set(responses) == {"200", "202", "400", "401", "408", "413", "415", "429", "500", "503"}
    assert list(responses["200"]["content"]) == ["application/mp4", "video/webm"]
    for status in ("429", "503"):
        assert "Retry-After" in responses[status]["headers"]
    for status in ("400", "408", "413", "415", "429", "503"):
        assert responses[status]["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")
    assert schema["info"]["title"]
    assert schema["info"]["description"]


async def test_every_path_of_the_schema_has_a_summary_and_a_description(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    others = {"/", "/ping", "/health/live", "/health/ready", "/metrics"}
    assert {path for path in schema["paths"] if not path.startswith("/v1/")} == others
    for path in schema["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["description"]
