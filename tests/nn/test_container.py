"""Sequential, ModuleList and ModuleDict."""
from __future__ import annotations

import pytest

import minigrad as mg
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


def test_parameter_list(torch):
    lists = []
    for n, lib in ((nn, mg), (torch.nn, torch)):
        p = n.ParameterList([lib.ones(2, 3), n.Parameter(lib.zeros(4))])
        p.append(lib.ones(())).extend([lib.zeros(1, 2), "text"])
        p[1] = lib.ones(3)
        lists.append(p)
    mine, theirs = lists
    assert repr(mine).split() == repr(theirs).replace("torch.", "").split() and list(mine.state_dict()) == list(theirs.state_dict()) and len(mine) == 5
    assert isinstance(mine[1], nn.Parameter) and mine[-1] == mine[4] == "text" and [p.shape for p in mine.parameters()] == [(2, 3), (3,), (), (1, 2)]
    assert [tuple(p.shape) for p in mine[1:3]] == [(3,), ()] and isinstance(mine[1:3], nn.ParameterList)
    second = mine[1]
    assert mine.pop(0).shape == (2, 3) and len(mine) == 4 and mine[0] is second and list(mine.state_dict()) == ["0", "1", "2"]
    for bad, error in ((lambda: mine[9], IndexError), (lambda: mine.extend(3), TypeError), (lambda: mine.extend(mg.ones(3)), TypeError), (mine, RuntimeError)):
        with pytest.raises(error):
            bad()


def test_parameter_dict(torch):
    dicts = []
    for n, lib in ((nn, mg), (torch.nn, torch)):
        p = n.ParameterDict({"b": lib.ones(2), "a": n.Parameter(lib.zeros(4))})
        p["c"] = lib.ones(1, 2)
        p.update([("a", lib.ones(3)), ("d", 5)])
        dicts.append(p)
    mine, theirs = dicts
    assert "\n  (c): Parameter containing: [float32 of size 1x2]" in repr(mine) and list(mine.state_dict()) == list(theirs.state_dict())
    assert list(mine) == list(mine.keys()) == list(theirs.keys()) and "a" in mine and len(mine) == 4 and list(reversed(mine)) == ["d", "c", "b", "a"]
    assert mine["a"].shape == (3,) and mine.get("x", 7) == 7 and mine.setdefault("e", mg.ones(1)) is mine["e"] and isinstance(mine["e"], nn.Parameter)
    assert [k for k, _ in mine.items()] == list(mine) and len(mine.values()) == 5 and list((mine | nn.ParameterDict({"z": 1})).keys())[-1] == "z"
    assert mine.popitem()[0] == "e" and mine.pop("b").shape == (2,) and list(mine.copy()) == ["a", "c", "d"]
    mine["b"] = mg.ones(1)                              # last: only a plain dict is sorted
    assert list(mine.copy()) == list(mine | nn.ParameterDict()) == ["a", "c", "d", "b"] and mine.pop("b").shape == (1,)
    assert list({"z": 2} | mine) == ["z", *mine] and list(mine.fromkeys(["y", "b"], 1).items()) == [("y", 1), ("b", 1)]
    mine |= nn.ParameterDict({"q": mg.ones(2)})
    assert list(mine.state_dict()) == ["a", "c", "q"]
    mine.clear()
    assert not len(mine) and not list(mine.parameters())
    for bad, error in ((lambda: mine["a"], KeyError), (mine.popitem, KeyError), (lambda: mine.update(3), TypeError), (lambda: mine.__setitem__(3, 1), TypeError),
                       (lambda: mine.__setitem__("forward", 1), KeyError), (mine, RuntimeError)):
        with pytest.raises(error):
            bad()
