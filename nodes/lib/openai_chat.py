"""A language model behind a URL that speaks OpenAI's chat completions protocol (vLLM, llama.cpp, Ollama, OpenAI …)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

from .llm import Template

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class ServiceError(RuntimeError):
    """The service refused a request, could not be reached, or answered with something else than a completion."""


class OpenAIChat:
    """A chat model behind ``{base_url}/chat/completions``.

    Attributes:
        url: where requests go.
        model: the model's name at the service.
    """

    continues = False

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        *,
        template: Template = "few_shot",
        timeout: float = 120.0,
        attempts: int = 5,
        pause: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing is sent yet.

        Args:
            base_url: ``https://host/v1`` or the like.
            model: the model's name at the service.
            api_key: sent as a bearer token; None sends none.
            template: the form of prompt that the model understands.
            timeout: seconds to wait for an answer.
            attempts: how often a request is sent before its failure counts.
            pause: seconds before the second attempt; doubled for each further one, at most 60.
            sleep: how to wait.

        Raises:
            ValueError: the URL is none, or it would send the key unencrypted to another machine.
        """
        url = httpx.URL(base_url.rstrip("/") + "/chat/completions")
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(
                f"endpoint {base_url!r} is no http(s) URL, expected something like http://localhost:8000/v1"
            )
        if api_key and url.scheme == "http" and url.host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError(f"endpoint {base_url} is not encrypted: with an API key use https")
        self.url, self.model, self.template = url, model, template
        self._attempts, self._pause, self._sleep = attempts, pause, sleep
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(timeout=timeout, headers=headers)

    def complete(
        self,
        prompt: str,
        n: int = 1,
        *,
        seed: int = 0,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: str | None = None,
    ) -> list[str]:
        """See `LLM.complete`. Many services know no ``n``, so each completion is a request with a seed of its own.

        Raises:
            ServiceError: see there; the message has the URL, the status and the service's own words, never the key.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
        }
        if stop:
            body["stop"] = [stop]
        return [self._ask(body | {"seed": (seed + i) % 2**64}) for i in range(n)]

    def _ask(self, body: dict[str, Any]) -> str:
        for attempt in range(1, self._attempts + 1):
            wait = min(self._pause * 2 ** (attempt - 1), 60.0)
            try:
                response = self._client.post(self.url, json=body)
            except httpx.TransportError as error:  # no connection, a broken one, or no answer in time
                problem = f"{type(error).__name__}: {error}"
            else:
                if response.status_code == 200:
                    return _content(response, self.url)
                problem = f"status {response.status_code}: {response.text[:300].strip()}"
                if response.status_code not in RETRIED:
                    raise ServiceError(f"{self.url}: {problem}")
                wait = max(wait, _retry_after(response))
            if attempt < self._attempts:
                self._sleep(wait)
        raise ServiceError(f"{self.url}: {problem} (after {self._attempts} attempts)")


def _content(response: httpx.Response, url: httpx.URL) -> str:
    try:
        content = response.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ServiceError(f"{url}: answered with no chat completion: {response.text[:300].strip()!r}") from error
    if not isinstance(content, str):
        raise ServiceError(f"{url}: the completion has no text, but {content!r}")
    return content


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the service asks to wait, at most 60; the form with a date is not understood and counts as 0."""
    value = response.headers.get("Retry-After", "")
    return min(float(value), 60.0) if value.replace(".", "", 1).isdigit() else 0.0
