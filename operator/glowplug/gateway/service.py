"""Every request that arrived whole: understood, then delivered, listed or refused."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import orjson

from glowplug.gateway import questions, sse
from glowplug.gateway.delivery import Call, Delivery
from glowplug.gateway.fleet import Fleet
from glowplug.gateway.metrics import UNKNOWN, Metrics
from glowplug.gateway.model import ServedModel
from glowplug.gateway.proxy import Reply, Request
from glowplug.gateway.proxy.wire import end_to_end
from glowplug.gateway.refusal import JSON_TYPE, Refusal

logger = logging.getLogger(__name__)

# Bodies are read on their way back, so engines must not compress them.
_NOT_FORWARDED = (b"host", b"accept-encoding")
# What the metrics call answers whose status line tells less than what became of them.
_CLIENT_LEFT = 499
_CUT = 502


@dataclass(frozen=True, slots=True)
class Service:
    """The proxy's handler."""

    fleet: Fleet
    delivery: Delivery
    metrics: Metrics

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request."""
        label = UNKNOWN
        refused = 0
        left = False
        try:
            path = questions.path_of(request)
            if path == questions.MODELS or path.startswith(questions.MODELS + "/"):
                self._tell_models(request, reply, path)
                return
            call = self._understand(request, reply, path)
            label = call.model.key
            await self.delivery.deliver(call)
        except Refusal as refusal:
            refused = refusal.status
            _refuse(request, reply, refusal)
        except asyncio.CancelledError:
            left = True
            raise
        except Exception:
            refused = 500
            logger.exception("a request failed inside the gateway", extra={"model": label})
            _refuse(request, reply, Refusal(500, "The gateway failed; its log says why."))
        finally:
            answered = reply.status if reply.whole else _CUT
            code = _CLIENT_LEFT if left else refused or answered
            self.metrics.answered(label, code)

    def _understand(self, request: Request, reply: Reply, path: str) -> Call:
        directory = self.fleet.directory
        common = path in questions.COMMON
        if not common and not any(path in model.paths for model in directory):
            raise questions.no_such_path(path)
        if request.method != b"POST":
            raise Refusal(405, f"'{path}' takes POST.", code="method_not_allowed")
        question = questions.read(request)
        model = directory.resolve(question.model)
        if not common and path not in model.paths:
            raise Refusal(
                404,
                f"The engine of the model '{question.model}' has no route '{path}'.",
                code="unknown_url",
            )
        known_to_engine = question.model == model.served_name
        return Call(
            reply=reply,
            model=model,
            traffic=self.fleet.traffic(model.key),
            stream=question.stream and path not in questions.NEVER_STREAMED,
            received=request.received,
            target=path.encode("latin-1") + questions.query_of(request),
            headers=end_to_end(request.headers, drop=_NOT_FORWARDED),
            body=request.body if known_to_engine else question.renamed(model.served_name),
        )

    def _tell_models(self, request: Request, reply: Reply, path: str) -> None:
        if request.method != b"GET":
            raise Refusal(405, f"'{path}' takes GET.", code="method_not_allowed")
        directory = self.fleet.directory
        name = questions.model_in(path)
        if name:
            body = self._describe(directory.resolve(name))
        else:
            models = sorted((m for m in directory if self._offered(m)), key=lambda m: m.key)
            body = {"object": "list", "data": [self._describe(model) for model in models]}
        reply.send(200, [JSON_TYPE], orjson.dumps(body))

    def _offered(self, model: ServedModel) -> bool:
        # A request to any model but a switched-off one is answered, if only after a cold start.
        return model.pinned != 0 or self.fleet.traffic(model.key).serving

    def _describe(self, model: ServedModel) -> dict[str, object]:
        return {
            "id": self.fleet.directory.public_name(model),
            "object": "model",
            "created": int(model.created),
            "owned_by": model.namespace,
        }


def _refuse(request: Request, reply: Reply, refusal: Refusal) -> None:
    if reply.status:
        # Comments have sent the head already: the refusal is the stream's only event.
        reply.write(sse.error_event(refusal.body))
        reply.finish()
    else:
        body = b"" if request.method == b"HEAD" else refusal.body
        reply.send(refusal.status, refusal.headers, body)
