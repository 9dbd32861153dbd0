"""Detections become pixel rectangles: the best ones, without duplicates."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mmib.crop_objects.boxes import SAME_OBJECT, Pixels, choose
from mmib.crop_objects.detector import Detection


def boxes(found: list[Detection], most: int = 9, size: tuple[int, int] = (100, 50)) -> list[Pixels]:
    return [pixels for pixels, _ in choose(found, *size, most)]


def test_the_best_boxes_come_first_up_to_the_requested_number() -> None:
    found = [Detection((10 * n, 0, 10 * n + 9, 50), score, "") for n, score in enumerate([0.2, 0.9, 0.5])]
    assert boxes(found, 2) == [(10, 0, 19, 50), (20, 0, 29, 50)]


def test_an_object_found_by_two_phrases_is_cropped_once() -> None:
    found = [Detection((0, 0, 20, 20), 0.5, "dog"), Detection((0, 0, 20, 19), 0.6, "animal")]
    ((pixels, kept),) = choose(found, 100, 50, 3)
    assert (pixels, kept.phrase) == ((0, 0, 20, 19), "animal")


def test_overlap_is_intersection_over_union() -> None:
    assert Pixels(0, 0, 10, 10).overlap(Pixels(5, 0, 15, 10)) == 50 / 150
    assert Pixels(0, 0, 10, 10).overlap(Pixels(10, 10, 20, 20)) == 0


def test_boxes_are_clipped_to_the_image_and_dropped_outside_it() -> None:
    found = [Detection((-5, -5, 300, 20), 0.5, ""), Detection((120, 0, 140, 20), 0.9, "")]
    assert boxes(found) == [(0, 0, 100, 20)]


def test_invalid_boxes_are_dropped() -> None:
    nan, inf = float("nan"), float("inf")
    wrong = [(nan, 0, 1, 1), (0, 0, inf, 1), (9, 0, 5, 9), (5, 5, 5.2, 9)]
    assert boxes([Detection(box, 0.9, "") for box in wrong] + [Detection((0, 0, 9, 9), nan, "")]) == []


_PLACES = st.floats(-50, 150)


@given(st.lists(st.tuples(_PLACES, _PLACES, _PLACES, _PLACES, st.floats(0, 1)), max_size=20))
def test_selected_boxes_are_inside_the_image_and_distinct(found: list[tuple[float, ...]]) -> None:
    chosen = boxes([Detection((x0, y0, x1, y1), score, "") for x0, y0, x1, y1, score in found])
    for number, one in enumerate(chosen):
        assert one.area > 0
        x0, y0, x1, y1 = one.relative(100, 50)
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1
        assert all(one.overlap(other) <= SAME_OBJECT for other in chosen[:number])
