"""What the server answers, whichever protocol asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    regression_pb2,
)

from tf_compemb.native_session import NativeError
from tf_compemb.serving import examples, prediction
from tf_compemb.serving.metrics import Metrics
from tf_compemb.serving.model_config import configs_of
from tf_compemb.serving.model_manager import ModelManager, status_of
from tf_compemb.serving.servable import Servable
from tf_compemb.serving.status_codes import invalid_argument, not_found, unimplemented

_SIGNATURES = "signature_def"


class Service:
    """Answers requests with the models of a manager.

    Every method takes a request message and returns a response message, from any thread, and raises
    `NativeError` with TensorFlow Serving's code.

    Args:
        manager: The models.
        metrics: Where requests are counted.
        largest_bytes: Bytes that an input tensor may take.
    """

    def __init__(self, manager: ModelManager, metrics: Metrics, largest_bytes: int) -> None:
        self.manager, self.metrics, self.largest_bytes = manager, metrics, largest_bytes

    def predict(self, request: Any) -> Any:
        """Answers a `PredictRequest`."""
        return self._infer(
            request, lambda servable: prediction.predict(servable, request, self.largest_bytes)
        )

    def classify(self, request: Any) -> Any:
        """Answers a `ClassificationRequest`."""
        return self._infer(request, lambda servable: examples.classify(servable, request))

    def regress(self, request: Any) -> Any:
        """Answers a `RegressionRequest`."""
        return self._infer(request, lambda servable: examples.regress(servable, request))

    def multi_inference(self, request: Any) -> Any:
        """Answers a `MultiInferenceRequest`: several signatures of one version on one input."""
        if not request.tasks:
            raise invalid_argument("Inference request has no tasks")
        if len({task.model_spec.name for task in request.tasks}) > 1:
            raise invalid_argument(
                "All ModelSpecs in a MultiInferenceRequest must access one model"
            )
        names = [task.model_spec.signature_name or "serving_default" for task in request.tasks]
        for name in names:
            if names.count(name) > 1:
                raise invalid_argument(f"Duplicate evaluation of signature: {name}")
        response = inference_pb2.MultiInferenceResponse()
        with self.manager.use(request.tasks[0].model_spec) as servable:
            for task in request.tasks:
                _add_result(response, servable, task, request.input)
        return response

    def metadata(self, request: Any) -> Any:
        """Answers a `GetModelMetadataRequest`; `signature_def` is the only field there is."""
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid_argument(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for name in request.metadata_field:
            if name != _SIGNATURES:
                raise invalid_argument(f"Metadata field {name} is not supported")
        with self.manager.use(request.model_spec) as servable:
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.version
            response.metadata[_SIGNATURES].Pack(signature_map(servable))
        return response

    def status(self, request: Any) -> Any:
        """Answers a `GetModelStatusRequest`."""
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        spec = request.model_spec
        # A label is ignored, as in TensorFlow Serving.
        wanted = spec.version.value if spec.HasField("version") else None
        versions = self.manager.versions(spec.name)
        if wanted is not None:
            versions = [servable for servable in versions if servable.version == wanted]
        if not versions:
            which = "any versions" if wanted is None else f"version {wanted}"
            raise not_found(f"Could not find {which} of model {spec.name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for servable in versions:
            code, message = status_of(servable)
            one = response.model_version_status.add(
                version=servable.version, state=int(servable.state)
            )
            one.status.error_code, one.status.error_message = code, message
        return response

    def reload(self, request: Any) -> Any:
        """Answers a `ReloadConfigRequest`: the list of models is replaced."""
        self.manager.reload(configs_of(request))
        return model_management_pb2.ReloadConfigResponse()

    def _infer(self, request: Any, answer: Callable[[Servable], Any]) -> Any:
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        with self.manager.use(request.model_spec) as servable:
            return answer(servable)

    def measured(
        self,
        kind: str,
        protocol: str,
        model: Callable[[], str],
        answer: Callable[[], Any],
        started: float,
    ) -> Any:
        """Answers a request and notes how that went.

        Args:
            kind: What is asked, such as `"predict"`.
            protocol: `"GRPC"` or `"REST"`.
            model: Returns the name in the request, once it is answered.
            answer: Returns the answer or raises.
            started: `time.perf_counter()` of the request's arrival.
        """
        status = "INTERNAL"
        try:
            result = answer()
            status = "OK"
            return result
        except NativeError as error:
            status = error.code_name
            raise
        finally:
            name = model()
            known = name if self.manager.is_served(name) else ""
            seconds = time.perf_counter() - started
            self.metrics.request(known, kind, protocol, status, seconds)


def _add_result(response: Any, servable: Servable, task: Any, examples_input: Any) -> None:
    kind = task.method_name.removeprefix("tensorflow/serving/")
    if kind == "classify":
        classified = examples.classify(
            servable,
            classification_pb2.ClassificationRequest(
                model_spec=task.model_spec, input=examples_input
            ),
        )
        response.results.add(
            classification_result=classified.result, model_spec=classified.model_spec
        )
    elif kind == "regress":
        regressed = examples.regress(
            servable,
            regression_pb2.RegressionRequest(model_spec=task.model_spec, input=examples_input),
        )
        response.results.add(regression_result=regressed.result, model_spec=regressed.model_spec)
    else:
        raise unimplemented(f"Unsupported signature method_name: {task.method_name}")


def signature_map(servable: Servable) -> Any:
    """All signatures of a version, as a `SignatureDefMap`."""
    assert servable.session is not None
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, encoded in servable.session.serialized_signatures.items():
        signatures.signature_def[name].CopyFrom(meta_graph_pb2.SignatureDef.FromString(encoded))
    return signatures
