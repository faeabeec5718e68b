from tests.support import fuzzing
from tests.support.fuzzed_files import SHORT


async def test_damaged_and_hostile_files_get_a_video_or_a_400() -> None:
    result = await fuzzing.run(count=25, seed=7, show_progress=False, extent=SHORT)
    assert result.findings == []
    assert result.posted > 55
    assert {response[:3] for response in result.responses} == {"200", "400"}
    assert result.responses["400 audio_file: the audio is too long: at most 120 seconds"] > 0
    assert result.gateway_mib < 1200
