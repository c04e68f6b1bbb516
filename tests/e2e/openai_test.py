#!/usr/bin/env python3
"""The OpenAI API as the openai Python client sees it, with a real small model.

usage: tools/test tests/e2e/openai_test.py
"""
import asyncio
import unittest

import openai

import spind

SERVER = None
NAME = "smollm2-135m-instruct"
PROMPT = "The capital of France is"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def setUpModule():
    global SERVER
    SERVER = spind.Spind(spind.SMOLLM2, spind.POOLS)
    unittest.addModuleCleanup(SERVER.stop)


def client(**options):
    return openai.OpenAI(base_url=SERVER.url + "/v1", api_key="none", max_retries=0, timeout=60, **options)


def complete(**options):
    defaults = {"model": NAME, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    return client().completions.create(**(defaults | options))


def chat(**options):
    return client().chat.completions.create(
        **({"model": NAME, "messages": QUESTION, "max_completion_tokens": 16, "temperature": 0} | options))


class ModelsTest(unittest.TestCase):
    def test_the_list_names_the_model_and_its_context(self):
        models = client().models.list().data
        self.assertEqual([model.id for model in models], [NAME])
        self.assertEqual(models[0].object, "model")
        self.assertEqual(models[0].max_model_len, 8192)
        self.assertEqual(client().models.retrieve(NAME).created, models[0].created)

    def test_an_unknown_model_is_not_found(self):
        for ask in (lambda: client().models.retrieve("gpt-9"), lambda: complete(model="gpt-9"),
                    lambda: chat(model="gpt-9")):
            with self.assertRaises(openai.NotFoundError) as caught:
                ask()
            self.assertEqual(caught.exception.code, "model_not_found")
            self.assertEqual(caught.exception.type, "invalid_request_error")
            self.assertIn("gpt-9", caught.exception.message)


class CompletionTest(unittest.TestCase):
    def test_the_whole_answer_has_every_field(self):
        answer = complete()
        self.assertTrue(answer.id.startswith("cmpl-") and len(answer.id) >= 29, answer.id)
        self.assertEqual(answer.object, "text_completion")
        self.assertEqual(answer.model, NAME)
        self.assertTrue(answer.system_fingerprint.startswith("spin-"))
        self.assertEqual(len(answer.choices), 1)
        self.assertIn("Paris", answer.choices[0].text)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertIsNone(answer.choices[0].logprobs)
        self.assertEqual(answer.usage.completion_tokens, 12)
        self.assertEqual(answer.usage.prompt_tokens, 5)
        self.assertEqual(answer.usage.total_tokens, 17)
        self.assertEqual(answer.usage.prompt_tokens_details.cached_tokens, 0)

    def test_sixteen_tokens_are_generated_when_no_number_is_given(self):
        answer = complete(max_tokens=None, extra_body={"ignore_eos": True})
        self.assertEqual(answer.usage.completion_tokens, 16)

    def test_greedy_text_is_deterministic_and_streams_alike(self):
        whole = complete(max_tokens=24).choices[0].text
        self.assertEqual(complete(max_tokens=24).choices[0].text, whole)
        chunks = list(complete(max_tokens=24, stream=True))
        self.assertEqual("".join(chunk.choices[0].text for chunk in chunks), whole)
        self.assertEqual(len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}), 1)
        self.assertEqual([chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason],
                         ["length"])
        self.assertEqual(chunks[-1].choices[0].finish_reason, "length")
        self.assertGreater(len(chunks), 6)

    def test_the_usage_chunk_comes_last_and_alone(self):
        chunks = list(complete(stream=True, stream_options={"include_usage": True}))
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.total_tokens, 17)
        self.assertTrue(all(chunk.usage is None and chunk.choices for chunk in chunks[:-1]))
        self.assertTrue(all(chunk.usage is None for chunk in complete(stream=True)))

    def test_a_seed_makes_samples_repeatable(self):
        def sample(seed):
            return complete(temperature=1.2, seed=seed, max_tokens=16).choices[0].text
        self.assertEqual(sample(7), sample(7))
        self.assertEqual(len({sample(seed) for seed in range(4)}), 4)

    def test_n_gives_as_many_choices_in_order(self):
        answer = complete(n=3, temperature=1.2, seed=3)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2])
        self.assertEqual(len({choice.text for choice in answer.choices}), 3)
        self.assertEqual(answer.usage.prompt_tokens, 5)
        texts = ["", "", ""]
        finished = []
        for chunk in complete(n=3, temperature=1.2, seed=3, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].text
            if chunk.choices[0].finish_reason:
                finished.append(chunk.choices[0].index)
        self.assertEqual(texts, [choice.text for choice in answer.choices])
        self.assertEqual(sorted(finished), [0, 1, 2])
        same = complete(n=2)
        self.assertEqual(same.choices[0].text, same.choices[1].text)

    def test_several_prompts_give_choices_prompt_by_prompt(self):
        answer = complete(prompt=[PROMPT, "1, 2, 3, 4,"], n=2, max_tokens=6)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2, 3])
        self.assertIn("Paris", answer.choices[1].text)
        self.assertIn("5", answer.choices[2].text)
        self.assertEqual(answer.choices[2].text, complete(prompt="1, 2, 3, 4,", max_tokens=6).choices[0].text)

    def test_logprobs_describe_the_text(self):
        choice = complete(logprobs=3).choices[0]
        logprobs = choice.logprobs
        self.assertEqual("".join(logprobs.tokens), choice.text)
        self.assertEqual(len(logprobs.token_logprobs), 12)
        offset = 0
        for i, token in enumerate(logprobs.tokens):
            self.assertEqual(logprobs.text_offset[i], offset)
            offset += len(token)
            top = logprobs.top_logprobs[i]
            self.assertIn(len(top), (3, 4))
            self.assertAlmostEqual(max(top.values()), logprobs.token_logprobs[i])  # greedy takes the likeliest
            self.assertLessEqual(logprobs.token_logprobs[i], 0)
        streamed = []
        for chunk in complete(logprobs=3, stream=True):
            if chunk.choices[0].logprobs:
                streamed += chunk.choices[0].logprobs.token_logprobs
        self.assertEqual(streamed, logprobs.token_logprobs)

    def test_echo_scores_the_prompt(self):
        choice = complete(echo=True, logprobs=1, max_tokens=0).choices[0]
        self.assertEqual(choice.text, PROMPT)
        self.assertEqual("".join(choice.logprobs.tokens), PROMPT)
        self.assertIsNone(choice.logprobs.token_logprobs[0])
        self.assertIsNone(choice.logprobs.top_logprobs[0])
        self.assertTrue(all(value <= 0 for value in choice.logprobs.token_logprobs[1:]))
        generated = complete(logprobs=1, max_tokens=4, extra_body={"return_token_ids": True}).choices[0]
        tokens = generated.prompt_token_ids + generated.token_ids
        again = complete(prompt=tokens, echo=True, logprobs=1, max_tokens=0).choices[0]
        self.assertEqual(again.text, PROMPT + generated.text)
        self.assertEqual(again.logprobs.tokens[-4:], generated.logprobs.tokens)
        for scored, sampled in zip(again.logprobs.token_logprobs[-4:], generated.logprobs.token_logprobs):
            self.assertAlmostEqual(scored, sampled, delta=0.15)  # bfloat16, prefill against decode
        self.assertEqual(complete(echo=True, max_tokens=4).choices[0].text, PROMPT + generated.text)

    def test_a_stop_string_ends_the_text_before_it(self):
        whole = complete(prompt="1, 2, 3, 4,", max_tokens=24).choices[0].text
        self.assertIn("7, 8", whole)
        expected = whole[:whole.index("7, 8")]
        choice = complete(prompt="1, 2, 3, 4,", max_tokens=24, stop=["never", "7, 8"]).choices[0]
        self.assertEqual((choice.text, choice.finish_reason, choice.stop_reason), (expected, "stop", "7, 8"))
        chunks = list(complete(prompt="1, 2, 3, 4,", max_tokens=24, stop="7, 8", stream=True))
        self.assertEqual("".join(chunk.choices[0].text for chunk in chunks), expected)
        self.assertEqual(chunks[-1].choices[0].finish_reason, "stop")
        kept = complete(prompt="1, 2, 3, 4,", max_tokens=24, stop="7, 8",
                        extra_body={"include_stop_str_in_output": True}).choices[0]
        self.assertEqual(kept.text, expected + "7, 8")

    def test_logit_bias_forces_and_forbids_tokens(self):
        first = complete(extra_body={"return_token_ids": True}).choices[0].token_ids[0]
        forced = complete(logit_bias={str(first): 100}, max_tokens=4, extra_body={"return_token_ids": True})
        self.assertEqual(forced.choices[0].token_ids, [first] * 4)
        without = complete(logit_bias={str(first): -100}, extra_body={"return_token_ids": True})
        self.assertNotIn(first, without.choices[0].token_ids)

    def test_token_ids_go_in_and_come_out(self):
        _, _, tokens = SERVER.post("/tokenize", {"prompt": PROMPT})
        answer = complete(prompt=tokens["tokens"], extra_body={"return_token_ids": True})
        self.assertEqual(answer.choices[0].text, complete().choices[0].text)
        self.assertEqual(answer.choices[0].prompt_token_ids, tokens["tokens"])
        _, _, text = SERVER.post("/detokenize", {"tokens": answer.choices[0].token_ids})
        self.assertEqual(text["prompt"], answer.choices[0].text)
        two = complete(prompt=[tokens["tokens"], tokens["tokens"][:3]], max_tokens=2)
        self.assertEqual(len(two.choices), 2)

    def test_fields_of_other_servers_are_accepted(self):
        answer = complete(user="someone", extra_body={
            "store": False, "metadata": {"a": "b"}, "top_k": 20, "min_p": 0.01, "repetition_penalty": 1.0,
            "service_tier": "auto", "no_such_field": [1]})
        self.assertEqual(answer.choices[0].text, complete().choices[0].text)

    def test_penalties_and_min_tokens_act(self):
        ones = "1, 1, 1, 1, 1, 1,"
        plain = complete(prompt=ones).choices[0].text
        punished = complete(prompt=ones, frequency_penalty=2, presence_penalty=2).choices[0].text
        self.assertNotEqual(plain, punished)
        answer = chat(max_completion_tokens=60, extra_body={"min_tokens": 40})
        self.assertGreaterEqual(answer.usage.completion_tokens, 40)


class ChatTest(unittest.TestCase):
    def test_the_model_answers(self):
        answer = chat()
        self.assertTrue(answer.id.startswith("chatcmpl-"))
        self.assertEqual(answer.object, "chat.completion")
        self.assertIn("Paris", answer.choices[0].message.content)
        self.assertEqual(answer.choices[0].message.role, "assistant")
        self.assertIsNone(answer.choices[0].message.refusal)
        self.assertIsNone(answer.choices[0].message.tool_calls)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)

    def test_the_stream_says_the_same(self):
        chunks = list(chat(stream=True, stream_options={"include_usage": True}))
        whole = chat()
        self.assertEqual((chunks[0].choices[0].delta.role, chunks[0].choices[0].delta.content), ("assistant", ""))
        self.assertTrue(all(chunk.choices[0].delta.role is None for chunk in chunks[1:-1]))
        self.assertTrue(all(chunk.object == "chat.completion.chunk" for chunk in chunks))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[-2].choices[0].finish_reason, "stop")
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)

    def test_the_client_s_own_accumulation_works(self):
        with client().chat.completions.stream(model=NAME, messages=QUESTION, max_completion_tokens=16,
                                              temperature=0) as stream:
            for _ in stream:
                pass
            final = stream.get_final_completion()
        self.assertEqual(final.choices[0].message.content, chat().choices[0].message.content)

    def test_logprobs_have_the_chat_shape(self):
        choice = chat(logprobs=True, top_logprobs=2, max_completion_tokens=6).choices[0]
        tokens = choice.logprobs.content
        self.assertEqual("".join(token.token for token in tokens), choice.message.content)
        self.assertEqual(b"".join(bytes(token.bytes) for token in tokens).decode(), choice.message.content)
        for token in tokens:
            self.assertEqual(len(token.top_logprobs), 2)
            self.assertEqual(token.top_logprobs[0].token, token.token)
            self.assertAlmostEqual(token.top_logprobs[0].logprob, token.logprob)
            self.assertGreaterEqual(token.top_logprobs[0].logprob, token.top_logprobs[1].logprob)
        self.assertIsNone(choice.logprobs.refusal)

    def test_messages_take_parts_developers_and_history(self):
        parts = [{"role": "user", "content": [{"type": "text", "text": QUESTION[0]["content"]}]}]
        self.assertEqual(chat(messages=parts).choices[0].message.content, chat().choices[0].message.content)
        system = [{"role": "system", "content": "Answer in one word."}] + QUESTION
        developer = [{"role": "developer", "content": "Answer in one word."}] + QUESTION
        self.assertEqual(chat(messages=system).choices[0].message.content,
                         chat(messages=developer).choices[0].message.content)
        history = QUESTION + [{"role": "assistant", "content": "Paris."}, {"role": "user", "content": "And of Italy?"}]
        self.assertIn("Rome", chat(messages=history, max_completion_tokens=24).choices[0].message.content)

    def test_n_and_max_tokens(self):
        answer = chat(n=2, temperature=1, seed=5, max_completion_tokens=3, max_tokens=9,
                      extra_body={"ignore_eos": True})
        self.assertEqual([choice.index for choice in answer.choices], [0, 1])
        self.assertEqual(answer.usage.completion_tokens, 6)  # max_completion_tokens wins
        self.assertEqual([choice.finish_reason for choice in answer.choices], ["length", "length"])

    def test_async_clients_stream_side_by_side(self):
        async def one(asynchronous, question):
            stream = await asynchronous.chat.completions.create(
                model=NAME, messages=[{"role": "user", "content": question}], max_completion_tokens=12, temperature=0,
                stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        async def all_of_them():
            async with openai.AsyncOpenAI(base_url=SERVER.url + "/v1", api_key="none", max_retries=0) as asynchronous:
                whole = await asynchronous.completions.create(model=NAME, prompt=PROMPT, max_tokens=4, temperature=0)
                return whole, await asyncio.gather(*[one(asynchronous, f"What is {i} plus {i}?") for i in range(4)])

        whole, texts = asyncio.run(all_of_them())
        self.assertIn("Paris", whole.choices[0].text)
        self.assertTrue(all(texts))


class ErrorTest(unittest.TestCase):
    def refused(self, ask, param=None, code=None):
        with self.assertRaises(openai.BadRequestError) as caught:
            ask()
        error = caught.exception
        self.assertEqual(set(error.body), {"message", "type", "param", "code"})
        self.assertEqual(error.type, "invalid_request_error")
        if param:
            self.assertEqual(error.param, param)
        if code:
            self.assertEqual(error.code, code)
        return error.message

    def test_a_prompt_over_the_context_has_the_words_that_clients_know(self):
        long = [5] * 9000
        for ask in (lambda: complete(prompt=long), lambda: complete(prompt=long, stream=True)):
            message = self.refused(ask, "prompt", "context_length_exceeded")
            self.assertIn("this model's maximum context length is 8192 tokens", message.lower())
            self.assertIn("9000 tokens", message)
        message = self.refused(lambda: chat(max_completion_tokens=8190), "messages", "context_length_exceeded")
        self.assertIn("maximum context length is 8192 tokens", message)
        message = self.refused(lambda: chat(messages=[{"role": "user", "content": "word " * 9000}]), "messages",
                               "context_length_exceeded")
        self.assertIn("maximum context length is 8192 tokens", message)

    def test_values_out_of_range_name_their_field(self):
        for field, value in [("temperature", 2.5), ("top_p", 0), ("presence_penalty", 3), ("frequency_penalty", -3),
                             ("n", 0), ("max_tokens", -1), ("logit_bias", {"999999": 1}), ("logit_bias", {"5": 200}),
                             ("stop", ["x"] * 17)]:
            with self.subTest(field=field, value=value):
                self.refused(lambda: complete(**{field: value}), field)
        self.refused(lambda: complete(prompt=[1, 999999]), "prompt")
        self.refused(lambda: complete(prompt=[]), "prompt")
        self.refused(lambda: chat(messages=[]), "messages")
        self.refused(lambda: chat(messages=[{"role": "wizard", "content": "x"}]), "messages[0].role")
        self.refused(lambda: chat(top_logprobs=2), "top_logprobs")
        self.refused(lambda: chat(stream_options={"include_usage": True}), "stream_options")

    def test_what_is_not_supported_is_refused_by_name(self):
        self.refused(lambda: chat(modalities=["text", "audio"]), "modalities", "unsupported_parameter")
        self.refused(lambda: chat(response_format={"type": "json_object"}), "response_format", "unsupported_parameter")
        self.refused(lambda: complete(suffix="end"), "suffix", "unsupported_parameter")
        image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
        self.refused(lambda: chat(messages=image), "messages[0].content[0]", "unsupported_parameter")

    def test_endpoints_that_do_not_exist_are_not_found(self):
        with self.assertRaises(openai.NotFoundError):
            client().embeddings.create(model=NAME, input="x")


class HeaderTest(unittest.TestCase):
    def test_every_answer_has_a_request_id(self):
        raw = client().chat.completions.with_raw_response.create(model=NAME, messages=QUESTION, max_tokens=1)
        self.assertTrue(raw.headers["x-request-id"].startswith("req-"))
        self.assertGreaterEqual(int(raw.headers["openai-processing-ms"]), 0)
        self.assertEqual(raw.headers["content-type"], "application/json")
        named = client(default_headers={"X-Request-Id": "my-id-1"})
        raw = named.completions.with_raw_response.create(model=NAME, prompt="x", max_tokens=1)
        self.assertEqual(raw.headers["x-request-id"], "my-id-1")
        with self.assertRaises(openai.BadRequestError) as caught:
            named.completions.create(model=NAME, prompt="x", temperature=9)
        self.assertEqual(caught.exception.request_id, "my-id-1")


if __name__ == "__main__":
    unittest.main()
