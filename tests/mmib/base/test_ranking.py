"""Ranks compared with SciPy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from mmib.base.ranking import mean_ranks


@given(st.lists(st.integers(-3, 3) | st.floats(-2, 2), max_size=20))
def test_equal_values_share_the_mean_of_their_ranks(values: list[float]) -> None:
    np.testing.assert_array_equal(mean_ranks(np.array(values, dtype=np.float64)), rankdata(values))
