"""Windows: against SciPy, and their errors."""
from __future__ import annotations

import numpy as np
import pytest
import scipy.signal.windows as theirs
import scipy.special

import minigrad as mg
from minigrad.signal import windows

OPTIONS = {"general_cosine": {"a": [0.5, 0.3, 0.2]}, "general_hamming": {"alpha": 0.6}, "exponential": {"tau": 2.5}, "gaussian": {"std": 1.5}, "kaiser": {"beta": 7.0}}


@pytest.mark.parametrize("name", windows.__all__)
def test_values(name):
    options = OPTIONS.get(name, {})
    for count in (0, 1, 2, 7, 8):
        for sym in (True, False):
            got = getattr(windows, name)(count, sym=sym, dtype=mg.float64, **options)
            want = getattr(theirs, name)(count, sym=sym, **options) if count > 1 else np.ones(count)
            if name == "nuttall" and count > 1:                 # SciPy has another of Nuttall's windows
                want = theirs.general_cosine(count, [0.3635819, 0.4891775, 0.1365995, 0.0106411], sym)
            np.testing.assert_allclose(got.numpy(), want, atol=1e-14, err_msg=f"{count} {sym}")
    assert getattr(windows, name)(3, **options).dtype == mg.float32


def test_errors():
    for call, kind, text in ((lambda: windows.hann(-1), ValueError, "negative"), (lambda: windows.hann(3, dtype=mg.float16), ValueError, "float32 or float64"),
                             (lambda: windows.exponential(3, tau=0), ValueError, "positive"), (lambda: windows.exponential(3, center=1), ValueError, "middle"),
                             (lambda: windows.kaiser(3, beta=-1), ValueError, "beta"), (lambda: windows.gaussian(3, std=0), ValueError, "positive"),
                             (lambda: windows.general_cosine(3, a=[]), ValueError, "at least one"), (lambda: windows.general_cosine(3, a=1), TypeError, "list"),
                             (lambda: windows.gaussian(3, std=float("nan")), ValueError, "positive"), (lambda: windows.kaiser(3, beta=float("nan")), ValueError, "finite"),
                             (lambda: windows.hann("a"), TypeError, r"^\[hann\] M must be a whole number; got 'a'"), (lambda: windows.hann(2.5), TypeError, "whole number; got 2.5"),
                             (lambda: windows.kaiser(5, beta="a"), TypeError, r"^\[kaiser\] beta must be a number; got 'a'"), (lambda: windows.gaussian(5, std=None), TypeError, "std must be"),
                             (lambda: windows.hann(3, beta=1), TypeError, "its options are")):
        with pytest.raises(kind, match=text):
            call()
    assert mg.equal(windows.kaiser(5, beta=2), windows.kaiser(5, beta=2.0))
    root = np.array([0, 0.75 ** 0.5, 1, 0.75 ** 0.5, 0])                    # i0(1000) is no number
    want = np.exp(1000 * (root - 1)) * scipy.special.i0e(1000 * root) / scipy.special.i0e(1000)
    np.testing.assert_allclose(windows.kaiser(5, beta=1000.0, dtype=mg.float64).numpy(), want, rtol=1e-11)
    assert windows.hann(3, requires_grad=True).requires_grad and windows.exponential(4, center=0, sym=False)[0].item() == 1
