"""Segments grow while motion and detector agree, and get long only where the detector is steady."""

from avatar.faces.cadence import MAX_SEGMENT, MIN_SEGMENT, WAVERING_SEGMENT, Cadence


def lengths(*overlaps: float, steadiness: float) -> list[int]:
    """Return the length of each segment, by the agreement at the end of the one before."""
    cadence = Cadence()
    result = [cadence.length]
    for overlap in overlaps:
        cadence.agreed(overlap)
        cadence.measured(steadiness)
        result.append(cadence.length)
    return result


def test_with_a_steady_detector_segments_grow_to_the_longest() -> None:
    assert lengths(*[0.98] * 6, steadiness=0.98)[-2:] == [MAX_SEGMENT, MAX_SEGMENT]


def test_a_steady_detector_has_long_segments_though_the_motion_drifts() -> None:
    assert lengths(*[0.91] * 6, steadiness=0.98)[-1] == MAX_SEGMENT


def test_a_detector_has_to_prove_that_it_is_steady() -> None:
    assert max(lengths(*[0.98] * 3, steadiness=0.98)) == WAVERING_SEGMENT


def test_with_a_detector_that_wavers_lucky_agreements_do_not_make_them_long() -> None:
    assert max(lengths(*[0.98] * 6, steadiness=0.9)) == WAVERING_SEGMENT


def test_disagreement_makes_them_short_and_no_face_does_too() -> None:
    assert lengths(*[0.98] * 6, 0.7, 0.0, 0.0, 0.0, steadiness=0.98)[6:] == [32, 16, 8, MIN_SEGMENT, MIN_SEGMENT]
