"""The function is what `openapi.yaml` says: its schemas are the code's, its answers are tried.

`python -m tests.test_entry_point` writes the schemas of the file anew.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from crawler.answer import STOPS, Answer
from crawler.demo.site import DemoSite
from crawler.fleet.orders import OrderAnswer
from crawler.request.crawl_request import RequestFields
from crawler.store.coverage import Coverage
from crawler.version import VERSION
from tests.function_process import ROOT, FunctionProcess

pytestmark = pytest.mark.once

OPENAPI = ROOT / "openapi.yaml"
MARKER = "    # below: written by `python -m tests.test_entry_point`\n"
NAMES = {"404": "NotFound", "405": "MethodNotAllowed"}
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)


def schemas_of_the_code() -> dict[str, Any]:
    """Describe what the code reads and answers."""
    types = [RequestFields, Answer, OrderAnswer, Coverage]
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        schema["description"] = schema["description"].partition("\n")[0]
    return schemas


def description() -> dict[str, Any]:
    """Read the OpenAPI file."""
    return yaml.safe_load(OPENAPI.read_text(encoding="utf-8"))


def test_the_schemas_are_the_code_s():
    """Requests, answers and coverage are described as the code reads and writes them."""
    described = description()["components"]["schemas"]
    assert {name: described.get(name) for name in schemas_of_the_code()} == schemas_of_the_code()


def test_every_parameter_can_be_given_in_the_query():
    """A query takes the names of a body, with the same schemas."""
    parameters = description()["paths"]["/"]["get"]["parameters"]
    assert [parameter["name"] for parameter in parameters] == list(RequestFields.__struct_fields__)
    for parameter in parameters:
        assert parameter["schema"]["$ref"].endswith(f"/properties/{parameter['name']}")


def test_every_status_of_an_answer_is_described():
    """Whatever ends a run, its HTTP status stands in the file; so does the version."""
    statuses = description()["paths"]["/"]["post"]["responses"]
    assert {str(stop.status) for stop in STOPS.values()} <= set(statuses)
    assert description()["info"]["version"] == VERSION


def test_what_any_path_may_answer_is_described():
    """Another path's 404 and another method's 405 have the shape of every error, at each path."""
    for path in description()["paths"].values():
        for operation in path.values():
            for status in ("404", "405"):
                assert operation["responses"][status]["$ref"].endswith(f"/{NAMES[status]}")
    for name in NAMES.values():
        answer = description()["components"]["responses"][name]
        assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/Error")


@pytest.mark.timeout(90)
def test_the_running_function_is_as_described(tmp_path):
    """Schemathesis finds no answer that the file does not describe, and none of 500 and above."""
    with DemoSite() as site, deployed_small(site, tmp_path / "store") as function:
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", str(OPENAPI)]
        command += ["--url", f"http://127.0.0.1:{function.port}", "--checks", ",".join(CHECKS)]
        command += ["--max-examples", "100", "--phases", "examples,coverage,fuzzing"]
        command += ["--request-timeout", "20", "--generation-database", "none", "--no-color"]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=80, check=False
        )
        log = function.log()
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in log


def deployed_small(site: DemoSite, store: Path) -> FunctionProcess:
    """The function where every run is short, since hundreds are asked for."""
    return FunctionProcess(
        {
            "GENIUS_TOKEN": site.token,
            "CRAWLER_BASE_URL": site.base_url,
            "CRAWLER_STORE": str(store),
            "CRAWLER_RATE": "0",
            "CRAWLER_MAX_RANGE": "20",
            "CRAWLER_LAST_SONG": "100",
            "CRAWLER_TIME_BUDGET_SECONDS": "0.2",
        }
    )


def write_schemas() -> None:
    """Write the code's schemas into the file, below the marker."""
    head = OPENAPI.read_text(encoding="utf-8").partition(MARKER)[0]
    text = yaml.safe_dump(schemas_of_the_code(), sort_keys=False, allow_unicode=True, width=100)
    indented = "".join(f"    {line}\n" for line in text.splitlines())
    OPENAPI.write_text(head + MARKER + indented, encoding="utf-8")


if __name__ == "__main__":
    write_schemas()
