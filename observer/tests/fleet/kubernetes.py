"""Lints and renders the Helm chart, and validates what it renders: the kinds of Kubernetes strictly against their schemas,
those of the Prometheus operator with models that are made of its CRDs. Prints each file as text and as objects, in JSON.

Call: kubernetes.py CHART VALUES..., each VALUES a JSON object; the files are those of the last.
"""

import copy
import json
import sys

import helm_python as helm
import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator

# The oldest that the chart takes, and the newest that the validator knows.
VERSIONS = ["1.25", kubernetes_validate.latest_version()]


def validate(document):
    """Fails on a field that is unknown, missing, or of another type."""
    if document["apiVersion"] == "monitoring.coreos.com/v1":
        model = getattr(operator, document["kind"]).model_validate(document)
        # What the model does not know, it drops.
        known = json.loads(model.model_dump_json(by_alias=True, exclude_unset=True))
        if known != document:
            raise ValueError(f"unknown fields: {known} is what remains of {document}")
        return
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


def refuses(document):
    try:
        validate(document)
    except Exception:
        return True
    return False


def render(chart, values):
    report = helm.lint(chart, values, strict=True)
    found = [message for message in report["messages"] if message["severity"] > 1]
    if report["errors"] or found:
        raise ValueError(f"helm lint: {report}")
    return helm.Chart.load(chart).render(values, name="observer", namespace="monitoring")


def main():
    chart, *all_values = sys.argv[1:]
    for values in all_values:
        files = render(chart, json.loads(values))
        files.pop("observer/templates/NOTES.txt")
        files = {path: text.strip() + "\n" for path, text in files.items() if text.strip()}
        for text in files.values():
            for document in yaml.safe_load_all(text):
                validate(document)
                wrong = copy.deepcopy(document)
                wrong["spec"]["noSuchField"] = 1
                if not refuses(wrong):
                    raise ValueError(f"a validator takes everything: {document['kind']}")
    for wrong in [{"podMonitor": {"enabled": "yes"}}, {"noSuchValue": 1}, {"port": 0}, {"prometheusRule": {"interval": "1m"}}]:
        if not helm.lint(chart, wrong)["errors"]:
            raise ValueError(f"the schema of values takes {wrong}")
    objects = {path: [text, *yaml.safe_load_all(text)] for path, text in files.items()}
    # The files of rules as they are read without the chart.
    for name in ["rules.yml", "alerts.yml"]:
        with open(f"{chart}/../../prometheus/{name}") as file:
            text = file.read()
        objects[name] = [text, yaml.safe_load(text)]
    print(json.dumps(objects))


main()
