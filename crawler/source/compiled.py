"""What a page is like, and the quick way to read JSON of that shape: typed structs, generated code.

Unknown parts of a page are skipped, and nothing is made twice. Whatever is not exactly as declared
is handed to the slow way, so that all judging stands there once.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from crawler.source.source import Field, FieldType
from crawler.source.values import Path, fit, walk

Info = Callable[[int, bytes], dict[str, Any]]

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""What the columns of an export can hold; JSON knows larger numbers."""

_TYPES: dict[FieldType, Any] = {
    "text": str | None,
    "integer": Int64 | None,
    "number": float | None,
    "boolean": bool | None,
    "json": Any,
}


class Condition(NamedTuple):
    """What a page must be like for something to hold.

    Attributes:
        path: Where to look, from the top of the page; a CSS selector alone for a web page; empty
            for the body as it came, without blanks around it.
        test: `equals` compares with `value`; `absent` holds for null, too; `empty` for `[]`, `{}`
            and `""`; `present` for what is there.
        value: What is compared.
    """

    path: Path
    test: Literal["equals", "absent", "empty", "present"]
    value: str | int | bool | None = None


class Shape(NamedTuple):
    """What a declaration says of a page.

    Attributes:
        fields: What is kept, in order.
        record: Where the record lies in the page; empty for the page itself.
        id: Where the record says which number it is about; None where it does not.
        ok: What must hold of a page, all of it.
        missing: What says, in a page of status 200, that there is none; any of it.
        is_html: Whether paths are CSS selectors.
    """

    fields: tuple[Field, ...]
    record: Path = ()
    id: Field | None = None
    ok: tuple[Condition, ...] = ()
    missing: tuple[Condition, ...] = ()
    is_html: bool = False


def compile_json(shape: Shape, slowly: Info) -> Info:
    """Make the function that takes the info from a page.

    Args:
        shape: Of JSON.
        slowly: Reads a page that is not exactly as declared, or says what is wrong with it.
    """
    tree = _plant(shape)
    if tree is None:
        return slowly
    take = _generate(shape, tree, msgspec.json.Decoder(tree.struct()).decode)
    longest = max((len(str(c.value)) for c in shape.missing if not c.path), default=-1)

    def info(song_num: int, body: bytes) -> dict[str, Any]:
        try:
            if not body.isascii():
                str(body, "utf-8")  # msgspec skips unknown fields without looking at their bytes
            is_page = longest < 0 or len(body.strip()) > longest
            taken = take(body, song_num) if is_page else None
        except (ValueError, RecursionError, msgspec.MsgspecError):
            taken = None
        return slowly(song_num, body) if taken is None else taken

    return info


class _Node:
    """One part of a page: an object with names, or a leaf of one type.

    Attributes:
        children: By name; empty for a leaf.
        type: Of a leaf.
        is_required: Whether a page without it takes the slow way.
        var: The name of an object in the generated code.
        empty: What an object that is absent or null reads as; None where it is required.
    """

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.type: Any = None
        self.is_required = False
        self.var = ""
        self.empty: Any = None

    def add(self, path: Path, leaf: Any) -> None:
        """Make room for a leaf; where two ways of reading meet, the part is read as it is."""
        node = self
        for name in path:
            if node.type is not None:
                node.type = Any
                return
            node = node.children.setdefault(name, _Node())
        if node.children or node.type not in (None, leaf):
            node.children, leaf = {}, Any
        node.type = leaf

    def find(self, path: Path) -> tuple["_Node", str, Path]:
        """Return the part at a path, or the leaf on the way there, how to reach it, and the rest."""
        node, reach = self, self.var
        for place, name in enumerate(path):
            if name not in node.children:
                return node, reach, path[place:]
            reach = f"{node.var}.f{list(node.children).index(name)}"
            node = node.children[name]
        return node, node.var or reach, ()

    def struct(self) -> Any:
        """Make the struct of this object; its attributes are `f0`, `f1` and so on."""
        names = {f"f{place}": name for place, name in enumerate(self.children)}
        made = zip(names, self.children.values(), strict=True)
        parts = [(attribute, *child.declared()) for attribute, child in made]
        parts.sort(key=len)  # what has no default comes first
        return msgspec.defstruct("Part", parts, rename=names, gc=False)

    def declared(self) -> tuple[Any, ...]:
        """Return the type, and the default where there is one."""
        if self.type is not None:
            return (self.type,) if self.is_required else (self.type | None, None)
        part = self.struct()
        if self.is_required:
            return (part,)
        self.empty = part()
        return part | None, msgspec.field(default_factory=lambda: self.empty)


def _plant(shape: Shape) -> _Node | None:
    """Join all paths into one tree; None where only the slow way can read such pages."""
    tree = _Node()
    asked = (*shape.ok, *shape.missing)
    for field in shape.fields:
        is_loose = field.type == "json"  # as it is, from its first name on: lists may lie within
        tree.add((*shape.record, *(field.path[:1] if is_loose else field.path)), _TYPES[field.type])
    if shape.id is not None:
        tree.add((*shape.record, *shape.id.path), int | str)
    for condition in asked:
        if condition.path and condition.test != "absent":
            is_equals = condition.test == "equals"
            tree.add(condition.path, type(condition.value) | None if is_equals else Any)
    for condition in asked:
        if condition.test == "absent" and tree.find(condition.path)[0].type is None:
            node, _, rest = tree.find(condition.path)
            if rest or not node.children:
                tree.add(condition.path, Any)
    for path in (shape.record, *(c.path[:-1] for c in shape.ok if c.test == "equals")):
        for length in range(1, len(path) + 1):
            tree.find(path[:length])[0].is_required = True
    is_cut = tree.type is not None or tree.find(shape.record)[0].type is not None
    has_plain_names = all(
        msgspec.json.encode(name) == f'"{name}"'.encode() for name in _names(tree)
    )
    return tree if has_plain_names and not is_cut else None


def _names(node: _Node) -> Iterator[str]:
    for name, child in node.children.items():
        yield name
        yield from _names(child)


def _generate(
    shape: Shape, tree: _Node, decode: Callable[[bytes], Any]
) -> Callable[[bytes, int], dict[str, Any] | None]:
    """Write the function that takes the values from a page, None where it is not right.

    Only names of ours and literals stand in its text: what the declaration says comes as `repr`.
    """
    scope: dict[str, Any] = {"decode": decode, "fitted": _fitted, "walk": walk}
    tree.var = "n0"
    lines = ["def take(body, num):", "n0 = decode(body)", *_openings(tree, scope)]
    if shape.id is not None:
        _, reach, rest = tree.find((*shape.record, *shape.id.path))
        value = f"walk({reach}, {rest!r})" if rest else reach
        lines.append(f"if {value} != num: return None")
    lines += [f"if not ({_test(tree, each)}): return None" for each in shape.ok]
    missing = [each for each in shape.missing if each.path]
    lines += [f"if {_test(tree, each)}: return None" for each in missing]
    entries = ", ".join(_entry(tree, shape.record, field) for field in shape.fields)
    lines.append(f"return {{{entries}}}")
    exec("\n    ".join(lines), scope)  # noqa: S102 - as dataclasses do: half the time of a loop
    made: Callable[[bytes, int], dict[str, Any] | None] = scope["take"]
    return made


def _openings(node: _Node, scope: dict[str, Any]) -> Iterator[str]:
    for place, child in enumerate(node.children.values()):
        if child.children:
            child.var = f"n{len(scope)}"
            scope[f"empty_{child.var}"] = child.empty
            default = "" if child.is_required else f" or empty_{child.var}"
            yield f"{child.var} = {node.var}.f{place}{default}"
            yield from _openings(child, scope)


def _test(tree: _Node, condition: Condition) -> str:
    node, reach, rest = tree.find(condition.path)
    value = f"walk({reach}, {rest!r})" if rest else reach
    if condition.test == "equals":
        wanted = condition.value
        return f"({value} == {wanted!r} and type({value}) is {type(wanted).__name__})"
    if condition.test == "empty":
        return f'{value} in ([], {{}}, "")'
    if node.children:
        return f"{value} is empty_{node.var}"
    return f"fitted({reach}, {rest!r}, 'json') is None"


def _entry(tree: _Node, record: Path, field: Field) -> str:
    node, reach, rest = tree.find((*record, *field.path))
    is_direct = not rest and node.type == _TYPES[field.type] and field.type != "json"
    value = reach if is_direct else f"fitted({reach}, {rest!r}, {field.type!r})"
    return f"{field.name!r}: {value}"


def _fitted(value: Any, rest: Path, wanted: FieldType) -> Any:
    """Take a value out of a part that was read as it is.

    Raises:
        ValueError: It is odd, and the slow way counts it.
    """
    made, is_odd = fit(walk(value, rest), wanted)
    if is_odd:
        raise ValueError
    return made
