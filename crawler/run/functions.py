"""Finding the user's own step 1 function or source by the name `module:name`."""

import difflib
import functools
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args
from urllib.parse import urlsplit

from crawler.errors import SettingsError
from crawler.settings.reading import is_loopback, source_of
from crawler.settings.settings import Settings
from crawler.source.source import FieldType, Source, traits_of
from crawler.store.block import FORMAT_VERSION
from crawler.store.opening import Identity

DEFAULT_BASE_URL = Settings().base_url
"""What the settings say where nobody said anything; a step 1 function asks elsewhere."""


def load_function(name: str) -> Any:
    """Import `module:name`: a step 1 function, a source, or a source class without arguments.

    The module may lie in the working directory, where it lies in the cloud too.

    Raises:
        SettingsError: It cannot be imported, or is neither.
    """
    module_name, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module = None
    try:
        module = importlib.import_module(module_name)
        target = getattr(module, attribute)
        if isinstance(target, type):
            target = target()
    except (Exception, SystemExit) as error:
        raise SettingsError(
            "function_unloadable",
            "CRAWLER_FUNCTION",
            f"{name} cannot be loaded: {type(error).__name__}: {error}{_place(module_name, error)}{_nearest(module, attribute)}",
        ) from error
    return fit(target, name)


def fit(target: Any, name: str | None = None) -> Any:
    """Return a step 1 function or a source as it is, and refuse what is neither.

    Raises:
        SettingsError: It is no function, or one that only makes a coroutine or a generator.
    """
    name = name or f"function={target!r:.60}"
    if isinstance(target, Source):
        return target
    if not callable(target) or isinstance(target, type):
        why = "is neither a function of (session, song_num, song_urls) nor a source"
        raise SettingsError("function_unfit", "CRAWLER_FUNCTION", f"{name} {why}")
    inner = _unwrapped(target)
    code = inner if inspect.isroutine(inner) else type(inner).__call__
    if inspect.iscoroutinefunction(code) or inspect.isgeneratorfunction(code):
        why = "must be a plain function: lanes run it side by side, without async def and yield"
        raise SettingsError("function_unfit", "CRAWLER_FUNCTION", f"{name} {why}")
    for field in traits_of(inner).fields:
        if field.type not in get_args(FieldType):
            why = f"says that {field.name} is {field.type!r}: there are {', '.join(get_args(FieldType))}"
            raise SettingsError("function_unfit", "CRAWLER_FUNCTION", f"{name} {why}")
    return target


def qualified_name(target: Any) -> str:
    """Return the qualified name of a function, also of a partial one; of an object, its class's."""
    inner = _unwrapped(target)
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{named.__module__}.{named.__qualname__}"


def _unwrapped(target: Any) -> Any:
    while isinstance(target, functools.partial):
        target = target.func
    return target


def target_of(settings: Settings) -> Any:
    """Make what a deployment crawls with: its own step 1 function or source class, or a declared source.

    Raises:
        SettingsError: It cannot be loaded, or `CRAWLER_FIELDS` is set beside it.
    """
    if settings.function is None:
        return source_of(settings)
    if settings.fields is not None:
        raise SettingsError(
            "fields_unfit",
            "CRAWLER_FIELDS",
            "CRAWLER_FIELDS chooses from a declared source: choose in your own itself",
        )
    return load_function(settings.function)


def refuse_step_1(target: Any) -> None:
    """Refuse to keep the bodies of what is no source: a step 1 function reads its pages itself.

    Raises:
        SettingsError: `keep_raw_unfit`.
    """
    if not isinstance(target, Source):
        message = "CRAWLER_KEEP_RAW works with a source: a step 1 function keeps what it appends"
        raise SettingsError("keep_raw_unfit", "CRAWLER_KEEP_RAW", message)


def identify(target: Any, base_url: str) -> Identity:
    """Return whose records a run makes, so that a store never mixes two.

    A step 1 function is known by the name and schema that it states (`crawler.step`), else by its
    qualified name and `1`. Which host it asks is seen later, unless the settings name one.
    """
    inner = _unwrapped(target)
    fields: dict[str, str] = {field.name: field.type for field in traits_of(inner).fields}
    if isinstance(target, Source):
        host = host_of(target.url(0))
        return Identity(target.name, host, target.schema, FORMAT_VERSION, fields)
    name = getattr(inner, "name", None) or qualified_name(target)
    schema = str(getattr(inner, "schema", getattr(inner, "version", "1")))  # version 1.0's word
    host = "" if base_url == DEFAULT_BASE_URL else host_of(base_url)
    return Identity(str(name), host, schema, FORMAT_VERSION, fields)


def _nearest(module: ModuleType | None, attribute: str) -> str:
    """Return what a misspelt name of a module may have meant, in words; empty where it has it."""
    if module is None or hasattr(module, attribute):
        return ""
    names = difflib.get_close_matches(attribute, dir(module), n=1)
    return f"; did you mean {module.__name__}:{names[0]}?" if names else ""


def _place(module_name: str, error: BaseException) -> str:
    """Return where a module was looked for, when it is the module itself that was not found."""
    if not isinstance(error, ModuleNotFoundError) or error.name != module_name.partition(".")[0]:
        return ""
    return f"; it is looked for in {Path.cwd()}, and among what is installed"


def host_of(url: str | None) -> str:
    """Return the host; a site on this machine gets another port each time, and is the same."""
    if url is None:
        return ""
    return "localhost" if is_loopback(url) else urlsplit(url).netloc
