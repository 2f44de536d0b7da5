"""Names shared by every part: API group, labels, annotations, ports and paths."""

from typing import Final

GROUP: Final = "glowplug.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

MANAGER: Final = "glowplug"

LABEL_MODEL: Final = f"{GROUP}/model"
LABEL_REVISION: Final = f"{GROUP}/revision"
LABEL_SLOT: Final = f"{GROUP}/slot"
LABEL_STATE: Final = f"{GROUP}/state"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"

STATE_ACTIVE: Final = "active"
STATE_DRAINING: Final = "draining"
COMPONENT_REPLICA: Final = "replica"

ANNOTATION_REPLICAS: Final = f"{GROUP}/replicas"
ANNOTATION_DRAINING_SINCE: Final = f"{GROUP}/draining-since"

CONTAINER_ENGINE: Final = "engine"
CONTAINER_RESTORE: Final = "restore"

LAUNCHER_PORT: Final = 9410
LAUNCHER_CONFIGMAP: Final = "glowplug-launcher"
LAUNCHER_DIR: Final = "/glowplug"
LAUNCHER_PATH: Final = f"{LAUNCHER_DIR}/launcher.pyz"
MODEL_DIR: Final = "/models/model"

ENV_LAUNCH: Final = "GLOWPLUG_LAUNCH"
ENV_MODEL_DIR: Final = "GLOWPLUG_MODEL_DIR"
ENV_PORT: Final = "GLOWPLUG_PORT"
ENV_SERVED_NAME: Final = "GLOWPLUG_SERVED_NAME"

GATEWAY_SERVICE: Final = "glowplug-gateway"
