"""Pocket's tokenizer: byte-level BPE, so that any input has ids, and how the turns of a chat are written.

A chat is `<|user|>question<|assistant|>answer<|end|>`, as often as there are exchanges. There is no other opening token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from learners.pocket.corpus import Chat

VOCABULARY = 2048
"""Pieces, with the 256 bytes and the special tokens."""
PAD, USER, ASSISTANT, END = SPECIAL = ("<|pad|>", "<|user|>", "<|assistant|>", "<|end|>")
CONTEXT = 512
"""Tokens of one sequence; training chats are far shorter."""

# The model was taught on one or two exchanges and without system messages. Of a longer talk it is therefore shown the last exchange and the
# new question: more would only be something it has never seen.
CHAT_TEMPLATE = (
    "{%- set turns = messages | rejectattr('role', 'equalto', 'system') | list -%}"
    "{%- for turn in (turns[-3:] if add_generation_prompt else turns[-4:]) -%}"
    "{%- if turn.role == 'assistant' -%}{{ '<|assistant|>' + turn.content + '<|end|>' }}"
    "{%- else -%}{{ '<|user|>' + turn.content }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)


def chat_text(chat: Chat) -> str:
    """A chat as the template writes it."""
    return "".join(f"{USER}{exchange.prompt}{ASSISTANT}{exchange.answer.text}{END}" for exchange in chat.exchanges)


def train_tokenizer(chats: Iterable[Chat], vocabulary: int = VOCABULARY) -> Any:
    """A transformers tokenizer whose pieces are learned from these chats."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    texts = (text for chat in chats for exchange in chat.exchanges for text in (exchange.prompt, exchange.answer.text))
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE, model_max_length=CONTEXT, clean_up_tokenization_spaces=False,
    )  # fmt: skip
