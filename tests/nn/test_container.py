"""Sequential, ModuleList and ModuleDict."""
from __future__ import annotations

import pytest

from minigrad import nn


def test_containers():
    a, b, c = nn.Linear(1, 1), nn.ReLU(), nn.Tanh()
    s = nn.Sequential(a, b)
    assert s[0] is a and s[-1] is b and len(s[:1]) == 1 and isinstance(s[:1], nn.Sequential)
    s.append(c).insert(0, c)
    assert list(s) == [c, a, b, c] and s.pop(0) is c and [n for n, _ in s.named_children()] == ["0", "1", "2"]
    del s[1:]
    assert list(s + nn.Sequential(b)) == [a, b] and list(s * 2) == [a, a]
    s += nn.Sequential(b)
    s *= 2
    s[1] = c
    assert list(s) == [a, c, a, b]
    items = nn.ModuleList([a])
    items += [b, c]
    items.insert(1, c)
    del items[0]
    assert list(items) == [c, b, c] and list(items[1:]) == [b, c] and list(items + [a])[-1] is a
    assert list(items._modules) == ["0", "1", "2"]
    names = nn.ModuleDict([("p", a), ("q", b)])
    names.update({"r": c})
    assert list(names) == list(names.keys()) == ["p", "q", "r"] and names["q"] is b and names.pop("p") is a
    assert "p" not in names and len(names) == 2
    for act, error in ((lambda: s[9], IndexError), (lambda: items[-9], IndexError), (lambda: names["p"], KeyError),
                       (lambda: s + [a], ValueError), (lambda: s * 0, ValueError), (lambda: s * "x", TypeError),
                       (lambda: nn.ModuleList(3), TypeError), (lambda: names.update([1]), TypeError),
                       (lambda: items(3), NotImplementedError)):
        with pytest.raises(error):
            act()
