#!/usr/bin/env python3
"""Asks a server one question over the OpenAI API and prints the answer as it streams. No dependencies.

usage: tools/ask.py [--url http://127.0.0.1:8000] [--max-tokens 256] QUESTION
"""
import argparse
import http.client
import json
import sys
import time
import urllib.parse


def events(response):
    """The JSON objects of a server-sent event stream, until [DONE]."""
    for raw in response:
        line = raw.decode().strip()
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        yield json.loads(data)
    raise ConnectionError("the stream ended before [DONE]")


def request(connection, method, path, body=None):
    headers = {"Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body) if body else None, headers)
    response = connection.getresponse()
    if response.status != 200:
        raise ConnectionError(f"{path} answered {response.status}: {response.read().decode()[:500]}")
    return response


def ask(url, question, max_tokens):
    """Prints the answer; returns (tokens, seconds to the first, seconds in all)."""
    host = urllib.parse.urlsplit(url).netloc
    connection = http.client.HTTPConnection(host, timeout=300)
    model = json.loads(request(connection, "GET", "/v1/models").read())["data"][0]["id"]
    begin = time.monotonic()
    response = request(connection, "POST", "/v1/chat/completions", {
        "model": model, "stream": True, "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": question}], "max_tokens": max_tokens, "temperature": 0})
    first, tokens = None, 0
    for event in events(response):
        if "error" in event:
            raise ConnectionError(event["error"].get("message", str(event["error"])))
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
        for choice in event.get("choices", []):
            text = choice.get("delta", {}).get("content")
            if text:
                first = first or time.monotonic() - begin
                print(text, end="", flush=True)
    print()
    if first is None:
        raise ConnectionError("the answer was empty")
    return tokens, first, time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("question")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--max-tokens", type=int, default=256)
    args = parser.parse_args()
    try:
        tokens, first, total = ask(args.url, args.question, args.max_tokens)
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        sys.exit(f"\nno answer from {args.url}: {error}")
    print(f"\n({tokens} tokens in {total:.1f} s, the first after {first * 1000:.0f} ms)", file=sys.stderr)


if __name__ == "__main__":
    main()
