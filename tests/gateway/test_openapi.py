import httpx

from avatar.form.fields import OPTION_FIELDS
from avatar.request import Background


async def test_the_schema_documents_the_form_field_by_field(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    body = schema["paths"]["/"]["post"]["requestBody"]
    assert body["required"]
    reference = body["content"]["multipart/form-data"]["schema"]["$ref"]
    form = schema["components"]["schemas"][reference.rpartition("/")[2]]
    assert form["required"] == ["face_file", "audio_file"]
    options = [option.name for option in OPTION_FIELDS]
    texts = {"avatarFileType": "png", "background": "From Input"}
    assert list(form["properties"]) == [*form["required"], *texts, "background_file", *options]
    assert {name: form["properties"][name]["default"] for name in texts} == texts
    assert all(form["properties"][option.name]["default"] == option.default_text for option in OPTION_FIELDS)
    assert all(field["description"] for field in form["properties"].values())
    assert form["properties"]["background"]["examples"] == [*(each.value for each in Background), "#00a0ff"]


async def test_the_schema_documents_the_responses(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    responses = schema["paths"]["/"]["post"]["responses"]
    assert set(responses) == {"200", "202", "400", "401", "408", "413", "415", "429", "500", "503"}
    # the last one is for generators of clients that know no video
    assert list(responses["200"]["content"]) == ["application/mp4", "video/webm", "application/octet-stream"]
    for status in ("429", "503"):
        assert "Retry-After" in responses[status]["headers"]
    for status in ("400", "408", "413", "415", "429", "503"):
        assert responses[status]["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")
    assert schema["info"]["title"]
    assert schema["info"]["description"]
    assert schema["info"]["license"]["identifier"] == "Apache-2.0"


async def test_every_response_has_the_id_of_the_request_and_every_operation_a_name(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    names = []
    for path in schema["paths"].values():
        for operation in path.values():
            names.append(operation["operationId"])
            for response in operation["responses"].values():
                reference = response["headers"]["X-Request-ID"]["$ref"]
                assert schema["components"]["headers"][reference.rpartition("/")[2]]["description"]
                assert ("X-Avatar-Ignored-Fields" in response["headers"]) == ("requestBody" in operation)
    assert {"make_avatar", "ping", "check_live", "check_ready", "submit_job"} <= set(names)
    assert len(names) == len(set(names))
    assert all(name.isidentifier() and "__" not in name for name in names)


async def test_a_key_is_optional_and_the_server_is_where_the_document_is(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    assert schema["servers"][0]["url"] == "."
    assert schema["security"] == [{}, {"ApiKey": []}]
    assert schema["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    assert schema["paths"]["/ping"]["get"]["security"] == []
    assert "security" not in schema["paths"]["/"]["post"]


async def test_every_path_of_the_schema_has_a_summary_and_a_description(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    others = {"/", "/ping", "/health/live", "/health/ready"}
    assert {path for path in schema["paths"] if not path.startswith("/v1/")} == others
    for path in schema["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["description"]
