"""The fields of KubeRay's resources that deploy/ uses, as JSON schemas that refuse any other.

Written down from the field reference of KubeRay 1.6 (ray.io/v1) in Ray's documentation, and for pods from that of
Kubernetes: no package of PyPI or npm carries KubeRay's own schemas. What a field means beyond its type is not checked.
"""

from typing import Any

TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}
FLAG = {"type": "boolean"}
# cpu: "2", memory: 8Gi; a number would be accepted, too, but not by Ray's autoscaler.
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?$"}


def of(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the schema of an object with these fields and no others."""
    fields = required | (optional or {})
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def each(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 1}


def named(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": schema}


ENV = {
    "oneOf": [
        of({"name": TEXT, "value": {"type": "string"}}),
        of({"name": TEXT, "valueFrom": of({"secretKeyRef": of({"name": TEXT, "key": TEXT}, {"optional": FLAG})})}),
    ]
}
VOLUME = {
    "oneOf": [
        of({"name": TEXT, "persistentVolumeClaim": of({"claimName": TEXT}, {"readOnly": FLAG})}),
        of({"name": TEXT, "emptyDir": of({}, {"medium": {"enum": ["", "Memory"]}, "sizeLimit": QUANTITY})}),
    ]
}
CONTAINER = of(
    {"name": TEXT, "image": TEXT},
    {
        "ports": each(of({"containerPort": COUNT}, {"name": {"type": "string", "pattern": "^[a-z0-9-]{1,15}$"}})),
        "env": each(ENV),
        "resources": of({}, {"limits": named(QUANTITY), "requests": named(QUANTITY)}),
        "volumeMounts": each(of({"name": TEXT, "mountPath": TEXT}, {"readOnly": FLAG})),
    },
)
TOLERATION = of(
    {"operator": {"enum": ["Exists", "Equal"]}},
    {"key": TEXT, "value": TEXT, "effect": {"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]}},
)
POD = of(
    {"containers": each(CONTAINER)},
    {
        "securityContext": of({}, {"runAsNonRoot": FLAG, "runAsUser": COUNT, "fsGroup": COUNT}),
        "serviceAccountName": {"type": "string"},
        "nodeSelector": named(TEXT),
        "tolerations": each(TOLERATION),
        "volumes": each(VOLUME),
    },
)
TEMPLATE = of({"spec": POD}, {"metadata": of({}, {"labels": named(TEXT), "annotations": named(TEXT)})})
START = named({"type": "string"})
CLUSTER = of(
    {"headGroupSpec": of({"template": TEMPLATE}, {"rayStartParams": START, "serviceType": TEXT})},
    {
        "rayVersion": TEXT,
        "authOptions": of({}, {"mode": {"enum": ["disabled", "token"]}}),
        "enableInTreeAutoscaling": FLAG,
        "autoscalerOptions": of(
            {}, {"idleTimeoutSeconds": COUNT, "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]}}
        ),
        "workerGroupSpecs": each(
            of(
                {"groupName": TEXT, "minReplicas": COUNT, "maxReplicas": COUNT, "template": TEMPLATE},
                {"replicas": COUNT, "rayStartParams": START, "numOfHosts": COUNT, "idleTimeoutSeconds": COUNT},
            )
        ),
    },
)


def resource(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    name = of({"name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,45}[a-z0-9])?$"}}, {"namespace": TEXT})
    return of({"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": kind}, "metadata": name, "spec": spec})


RAY_SERVICE = resource("RayService", of({"serveConfigV2": TEXT, "rayClusterConfig": CLUSTER}))
RAY_JOB = resource(
    "RayJob",
    of(
        {"entrypoint": TEXT, "rayClusterSpec": CLUSTER},
        {
            "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
            "backoffLimit": COUNT,
            "shutdownAfterJobFinishes": FLAG,
            "ttlSecondsAfterFinished": COUNT,
            "activeDeadlineSeconds": COUNT,
        },
    ),
)
