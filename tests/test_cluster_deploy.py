"""The files that make a cluster: what Ray's own schema and KubeRay's documented fields allow, with tokens on
and the store outside.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[1] / "cluster" / "deploy"

# Field names of KubeRay's API reference for ray.io/v1 (1.7).
KUBERAY: dict[str, set[str]] = {
    "RayJobSpec": {
        "activeDeadlineSeconds",
        "backoffLimit",
        "rayClusterSpec",
        "submitterPodTemplate",
        "metadata",
        "clusterSelector",
        "submitterConfig",
        "managedBy",
        "deletionStrategy",
        "entrypoint",
        "runtimeEnvYAML",
        "jobId",
        "submissionMode",
        "entrypointResources",
        "entrypointNumCpus",
        "entrypointNumGpus",
        "ttlSecondsAfterFinished",
        "shutdownAfterJobFinishes",
        "suspend",
        "preRunningDeadlineSeconds",
    },
    "RayClusterSpec": {
        "suspend",
        "managedBy",
        "autoscalerOptions",
        "headServiceAnnotations",
        "enableInTreeAutoscaling",
        "gcsFaultToleranceOptions",
        "headGroupSpec",
        "rayVersion",
        "workerGroupSpecs",
        "authOptions",
        "upgradeStrategy",
    },
    "HeadGroupSpec": {
        "template",
        "headService",
        "enableIngress",
        "rayStartParams",
        "serviceType",
        "resources",
        "labels",
    },
    "WorkerGroupSpec": {
        "suspend",
        "groupName",
        "replicas",
        "minReplicas",
        "maxReplicas",
        "idleTimeoutSeconds",
        "rayStartParams",
        "template",
        "scaleStrategy",
        "numOfHosts",
        "resources",
        "labels",
    },
    "AutoscalerOptions": {
        "resources",
        "image",
        "imagePullPolicy",
        "securityContext",
        "idleTimeoutSeconds",
        "upscalingMode",
        "version",
        "env",
        "envFrom",
        "volumeMounts",
    },
    "AuthOptions": {"mode", "secretName", "enableK8sTokenAuth"},
    "SubmitterConfig": {"backoffLimit"},
}


def unknown_fields(value: dict[str, Any], kind: str) -> set[str]:
    return {f"{kind}.{name}" for name in value.keys() - KUBERAY[kind]}


def test_the_ray_up_file_is_one_that_ray_takes() -> None:
    import ray.autoscaler
    from jsonschema import validate
    from ray.autoscaler._private.util import fillout_defaults, prepare_config, validate_config

    config = yaml.safe_load((DEPLOY / "ray-up.yaml").read_text())
    validate(config, json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text()))
    validate_config(prepare_config(fillout_defaults(config)))
    assert config["available_node_types"]["head"]["resources"]["CPU"] == 0
    starts = [
        c for c in config["head_start_ray_commands"] + config["worker_start_ray_commands"] if "ray start" in c
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in c for c in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_a_ray_up_file_with_a_mistake_is_refused() -> None:
    from ray.autoscaler._private.util import validate_config

    config = yaml.safe_load((DEPLOY / "ray-up.yaml").read_text())
    config["max_worker"] = config.pop("max_workers")
    with pytest.raises(Exception, match="max_worker"):
        validate_config(config)


def test_the_rayjob_has_documented_fields_only_retries_and_tokens() -> None:
    job = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    found = unknown_fields(spec, "RayJobSpec") | unknown_fields(cluster, "RayClusterSpec")
    found |= unknown_fields(cluster["headGroupSpec"], "HeadGroupSpec") | unknown_fields(
        cluster["autoscalerOptions"], "AutoscalerOptions"
    )
    found |= unknown_fields(cluster["authOptions"], "AuthOptions") | unknown_fields(
        spec["submitterConfig"], "SubmitterConfig"
    )
    for group in cluster["workerGroupSpecs"]:
        found |= unknown_fields(group, "WorkerGroupSpec")
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert all(isinstance(v, str) for v in group["rayStartParams"].values())
    assert found == set()
    assert cluster["authOptions"]["mode"] == "token"
    assert spec["backoffLimit"] == 3
    assert "store=s3://" in spec["entrypoint"]
    images = {
        c["image"]
        for g in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        for c in g["template"]["spec"]["containers"]
    }
    assert len(images) == 1
