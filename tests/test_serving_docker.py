"""The container set-up: valid Compose files, flags and paths that exist, files that parse."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

DOCKER = Path(__file__).resolve().parent.parent / "serving" / "docker"

# Of tensorflow_model_server 2.20, those that a set-up like this one may use.
FLAGS = {
    "port",
    "rest_api_port",
    "model_name",
    "model_base_path",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "monitoring_config_file",
    "enable_batching",
    "batching_parameters_file",
}


def settings() -> dict[str, str]:
    lines = (DOCKER / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def interpolate(text: str, values: dict[str, str]) -> str:
    """Compose's `${NAME}`, `${NAME:-default}`, `${NAME:+replacement}` and `${NAME:?error}`."""

    def value(match: re.Match) -> str:
        name, operator, operand = match[1], match[2], match[3] or ""
        if operator == ":+":
            return operand if values.get(name) else ""
        if operator == ":-":
            return values.get(name) or operand
        return values[name]

    return re.sub(r"\$\{(\w+)(?:(:[-+?])([^}]*))?\}", value, text)


def services(name: str, **changed: str) -> dict:
    text = interpolate((DOCKER / name).read_text(), settings() | changed)
    return yaml.safe_load(text)["services"]


def flags(service: dict) -> dict[str, str]:
    return dict(argument.removeprefix("--").split("=", 1) for argument in service["command"])


SERVERS = ("full", "compressed", "empty", "together")


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_files_follow_the_schema_of_compose(name):
    pytest.importorskip("check_jsonschema")
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, DOCKER / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]])
def test_compose_itself_takes_the_files(files, tmp_path):
    docker = shutil.which("docker") or pytest.skip("docker is not installed")
    if subprocess.run([docker, "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("docker has no `compose`")
    command = [docker, "compose", *(part for name in files for part in ("-f", name)), "config"]
    environment = {**os.environ, "MODELS": str(tmp_path)}
    done = subprocess.run(command, cwd=DOCKER, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("batching", ["", "true"])
def test_flags_exist_and_fit_one_another(batching):
    for name in SERVERS:
        given = flags(services("compose.yaml", BATCHING=batching)[name])
        assert set(given) <= FLAGS
        assert ("model_config_file" in given) != ("model_base_path" in given)
        if "model_name" in given:
            assert given["model_base_path"] == f"/models/{given['model_name']}"
        # The server refuses parameters without the switch.
        wanted = {"": ("false", ""), "true": ("true", "/config/batching.config")}[batching]
        if name != "empty":
            assert (given["enable_batching"], given["batching_parameters_file"]) == wanted


def test_files_that_flags_name_are_mounted():
    for name in SERVERS:
        service = services("compose.yaml", BATCHING="true")[name]
        mounts = {mount["target"]: mount["source"] for mount in service["volumes"]}
        for flag, value in flags(service).items():
            if flag.endswith("_file"):
                assert (DOCKER / mounts["/config"] / Path(value).name).is_file(), value
        assert all(mount["read_only"] for mount in service["volumes"])
        assert mounts["/models"] == settings()["MODELS"]


def test_ports_are_of_this_host_only_and_do_not_collide():
    taken = []
    for name, service in services("compose.yaml").items():
        for port in service["ports"]:
            host, outside, inside = port.split(":")
            assert host == "127.0.0.1"
            taken.append(outside)
            if name in SERVERS:
                assert inside in (flags(service)["port"], flags(service)["rest_api_port"])
    assert len(set(taken)) == len(taken) == 9


def test_the_health_check_tells_an_open_port_from_a_closed_one():
    (check,) = {tuple(services("compose.yaml")[name]["healthcheck"]["test"]) for name in SERVERS}
    assert check[:3] == ("CMD", "bash", "-c")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [*check[1:3], check[3].replace("8501", str(port))]
        assert subprocess.run(command, capture_output=True).returncode == 0
    assert subprocess.run(command, capture_output=True).returncode != 0


def test_a_gpu_server_is_the_cpu_server_with_a_gpu():
    for name in SERVERS:
        cpu, gpu = (services(file)[name] for file in ("compose.yaml", "compose.gpu.yaml"))
        assert cpu["image"] == f"tensorflow/serving:{settings()['TF_SERVING_TAG']}"
        assert gpu["image"] == f"tensorflow/serving:{settings()['TF_SERVING_GPU_TAG']}"
        assert cpu["environment"] == {"TF_ENABLE_ONEDNN_OPTS": "0"}
        assert gpu["environment"] == {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}


# Tags of tensorflow/serving that were seen in use, not those that ought to exist by now.
DOCUMENTED = {"2.19.1", "2.20.0"}
DOCUMENTED_FOR_GPUS = {"2.19.1-gpu"}


def test_tags_are_documented_ones_and_stand_in_one_place():
    assert settings()["TF_SERVING_TAG"] in DOCUMENTED
    assert settings()["TF_SERVING_GPU_TAG"] in DOCUMENTED_FOR_GPUS
    for name in ("TF_SERVING_TAG", "TF_SERVING_GPU_TAG"):
        tag = settings()[name]
        files = [path for path in DOCKER.rglob("*") if path.is_file()]
        found = [path.name for path in files if tag in path.read_text(encoding="utf-8")]
        assert found == [".env"]


def test_what_older_composes_lack_is_said():
    text = (DOCKER / "compose.yaml").read_text()
    assert ":+" in text
    assert "Needs Compose v2" in text
    guide = (DOCKER.parent / "README.md").read_text(encoding="utf-8")
    assert "Compose v2" in guide


def test_models_config_is_what_the_server_reads():
    pytest.importorskip("tensorflow_serving")
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    text = (DOCKER / "config/models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    models = config.model_config_list.config
    assert [model.name for model in models] == [settings()["FULL"], settings()["COMPRESSED"]]
    for model in models:
        assert model.base_path == f"/models/{model.name}"
        assert model.model_platform == "tensorflow"


def server_messages() -> dict:
    """Messages of the server that its Python package lacks, as far as they are used here."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="used_here.proto", package="used", syntax="proto3"
    )
    file.dependency.append("google/protobuf/wrappers.proto")
    batching = file.message_type.add(name="BatchingParameters")
    numbers = (
        "max_batch_size",
        "batch_timeout_micros",
        "max_enqueued_batches",
        "num_batch_threads",
    )
    for number, name in enumerate(numbers, start=1):
        field = batching.field.add(name=name, number=number, label=1, type=kinds.TYPE_MESSAGE)
        field.type_name = ".google.protobuf.Int64Value"
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, label=1, type=kinds.TYPE_BOOL)
    prometheus.field.add(name="path", number=2, label=1, type=kinds.TYPE_STRING)
    monitoring = file.message_type.add(name="MonitoringConfig")
    field = monitoring.field.add(
        name="prometheus_config", number=1, label=1, type=kinds.TYPE_MESSAGE
    )
    field.type_name = ".used.PrometheusConfig"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"used.{name}"))
        for name in ("BatchingParameters", "MonitoringConfig")
    }


def test_batching_and_monitoring_are_what_the_server_reads():
    pytest.importorskip("google.protobuf")
    from google.protobuf import text_format

    messages = server_messages()
    text = (DOCKER / "config/batching.config").read_text()
    batching = text_format.Parse(text, messages["BatchingParameters"]())
    assert batching.max_batch_size.value >= 1024  # The largest batch that `compare` sends.
    assert 0 < batching.batch_timeout_micros.value <= 5000
    text = (DOCKER / "config/monitoring.config").read_text()
    monitoring = text_format.Parse(text, messages["MonitoringConfig"]())
    assert monitoring.prometheus_config.enable
    scraped = yaml.safe_load((DOCKER / "config/prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["metrics_path"] == monitoring.prometheus_config.path
    for target in scraped["static_configs"][0]["targets"]:
        name, port = target.split(":")
        assert flags(services("compose.yaml")[name])["rest_api_port"] == port
