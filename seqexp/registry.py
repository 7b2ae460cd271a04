"""Names in the configuration, with the code and the dataclass of each.

An entry has two strings, the path of its class or function and that of the dataclass that checks its options,
so that names are listed without imports. Other packages add entries through the entry point group
``seqexp.plugins``, whose value is a function without arguments that calls `register`.
"""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from seqexp.errors import UserError, suggest


@dataclass(frozen=True)
class Entry:
    target: str  # "package.module:attribute" of the class or function
    schema: str  # "package.module:attribute" of its configuration dataclass


ENTRIES: dict[str, dict[str, Entry]] = {
    "model": {
        "gpt": Entry("seqexp.models.gpt:GPT", "seqexp.models.gpt_options:GPTConfig"),
        "rnn": Entry("seqexp.models.rnn:RNN", "seqexp.models.rnn_options:RNNConfig"),
        "lstm": Entry("seqexp.models.rnn:LSTM", "seqexp.models.rnn_options:LSTMConfig"),
        "gru": Entry("seqexp.models.rnn:GRU", "seqexp.models.rnn_options:RecurrentConfig"),
        "nmt": Entry("seqexp.models.nmt:NMT", "seqexp.models.nmt_options:NMTConfig"),
        "transformer": Entry(
            "seqexp.models.transformer:Transformer", "seqexp.models.transformer_options:TransformerConfig"
        ),
        "bert": Entry("seqexp.models.bert:Bert", "seqexp.models.bert_options:BertConfig"),
        "electra": Entry("seqexp.models.electra:Electra", "seqexp.models.electra_options:ElectraConfig"),
        "birnn": Entry(
            "seqexp.models.recurrent_encoder:RecurrentEncoder",
            "seqexp.models.recurrent_encoder_options:RecurrentEncoderConfig",
        ),
        "textcnn": Entry("seqexp.models.textcnn:TextCNN", "seqexp.models.textcnn_options:TextCNNConfig"),
        "fasttext_bag": Entry(
            "seqexp.models.fasttext_bag:FastTextBag", "seqexp.models.fasttext_bag_options:FastTextBagConfig"
        ),
        "word2vec": Entry("seqexp.models.word2vec:Word2Vec", "seqexp.models.word2vec_options:Word2VecConfig"),
        "fasttext": Entry("seqexp.models.fasttext:FastText", "seqexp.models.word2vec_options:FastTextConfig"),
        "glove": Entry("seqexp.models.glove:GloVe", "seqexp.models.glove_options:GloVeConfig"),
    },
    "data": {
        "text": Entry("seqexp.data.text:TextData", "seqexp.config.data:OwnTextConfig"),
        "potter": Entry("seqexp.data.text:TextData", "seqexp.config.data:TextDataConfig"),
        "shakespeare": Entry("seqexp.data.text:TextData", "seqexp.config.data:TextDataConfig"),
        "parity": Entry("seqexp.data.parity:ParityData", "seqexp.config.data:ParityDataConfig"),
        "tatoeba": Entry("seqexp.data.parallel:ParallelData", "seqexp.config.data:ParallelDataConfig"),
        "parallel": Entry("seqexp.data.parallel:ParallelData", "seqexp.config.data:OwnPairsConfig"),
        "phrasebook": Entry(
            "seqexp.data.phrasebook_data:PhrasebookData", "seqexp.config.data:PhrasebookConfig"
        ),
        "table": Entry("seqexp.data.labelled_data:LabelledData", "seqexp.config.labelled:OwnLabelledConfig"),
        "opinions": Entry("seqexp.data.opinions_data:OpinionsData", "seqexp.config.labelled:OpinionsConfig"),
        **{
            name: Entry("seqexp.data.labelled_data:LabelledData", "seqexp.config.labelled:LabelledConfig")
            for name in ("sst2", "sst5", "trec", "banking77", "cls_books", "umsab")
        },
        "tagged": Entry("seqexp.data.tagged_data:TaggedData", "seqexp.config.tagged:OwnTaggedConfig"),
        **{
            name: Entry("seqexp.data.tagged_data:TaggedData", "seqexp.config.tagged:TaggedConfig")
            for name in ("wnut17", "ud_ewt")
        },
    },
    "task": {
        "language_modeling": Entry(
            "seqexp.tasks.language_modeling:LanguageModeling",
            "seqexp.config.task:LanguageModelingConfig",
        ),
        "masked_language_modeling": Entry(
            "seqexp.tasks.masked_language_modeling:MaskedLanguageModeling",
            "seqexp.config.masked:MaskedLanguageModelingConfig",
        ),
        "replaced_tokens": Entry(
            "seqexp.tasks.replaced_tokens:ReplacedTokens", "seqexp.config.masked:ReplacedTokensConfig"
        ),
        "parity": Entry("seqexp.tasks.parity:Parity", "seqexp.config.task:ParityConfig"),
        "translation": Entry("seqexp.tasks.translation:Translation", "seqexp.config.task:TranslationConfig"),
        "classification": Entry(
            "seqexp.tasks.classification:Classification",
            "seqexp.config.classification:ClassificationConfig",
        ),
        "tagging": Entry("seqexp.tasks.tagging:Tagging", "seqexp.config.tagging:TaggingConfig"),
        "word_embeddings": Entry(
            "seqexp.tasks.word_embeddings:WordEmbeddings",
            "seqexp.config.word_embeddings:WordEmbeddingsConfig",
        ),
        "cooccurrences": Entry(
            "seqexp.tasks.cooccurrence_embeddings:CooccurrenceEmbeddings",
            "seqexp.config.word_embeddings:CooccurrencesConfig",
        ),
    },
    "tokenizer": {
        "char": Entry("seqexp.tokenizers.char:CharTokenizer", "seqexp.config.tokenizer:TokenizerConfig"),
        "byte": Entry("seqexp.tokenizers.byte:ByteTokenizer", "seqexp.config.tokenizer:ByteConfig"),
        "word": Entry("seqexp.tokenizers.word:WordTokenizer", "seqexp.config.tokenizer:WordConfig"),
        "whitespace": Entry(
            "seqexp.tokenizers.whitespace:WhitespaceTokenizer", "seqexp.config.tokenizer:WhitespaceConfig"
        ),
        "sentencepiece": Entry(
            "seqexp.tokenizers.sentencepiece:SentencePieceTokenizer",
            "seqexp.config.tokenizer:SentencePieceConfig",
        ),
        "wordpiece": Entry(
            "seqexp.tokenizers.hugging_face:WordPieceTokenizer", "seqexp.config.tokenizer:WordPieceConfig"
        ),
        "bpe": Entry("seqexp.tokenizers.hugging_face:BPETokenizer", "seqexp.config.tokenizer:BPEConfig"),
        "bare_word": Entry(
            "seqexp.tokenizers.bare_word:BareWordTokenizer", "seqexp.config.tokenizer:BareWordConfig"
        ),
        "bits": Entry("seqexp.tokenizers.bits:BitTokenizer", "seqexp.config.tokenizer:BitsConfig"),
    },
    "optimizer": {
        name: Entry(f"seqexp.training.optimizers:{name}", f"seqexp.config.optimizer:{schema}")
        for name, schema in {
            "adamw": "AdamConfig",
            "adam": "AdamConfig",
            "sgd": "SGDConfig",
            "rmsprop": "RMSpropConfig",
            "adagrad": "AdaGradConfig",
            "muon": "MuonConfig",
        }.items()
    },
    "scheduler": {
        name: Entry(f"seqexp.training.schedules:{name}", f"seqexp.config.optimizer:{schema}")
        for name, schema in {
            "constant": "ConstantConfig",
            "linear": "SchedulerConfig",
            "cosine": "SchedulerConfig",
            "inverse_sqrt": "SchedulerConfig",
            "wsd": "WSDConfig",
        }.items()
    },
}

# Folders with further configuration files, added by plugins.
CONF_DIRS: list[str] = []


def register(group: str, name: str, target: str, schema: str, conf_dir: str | None = None) -> None:
    """Add an entry; `conf_dir` is a folder laid out like this project's ``conf/``.

    Raises:
        ValueError: the group does not exist or the name is taken.
    """
    if group not in ENTRIES:
        raise ValueError(f"there is no group {group!r}; there are {', '.join(ENTRIES)}")
    entry = Entry(target, schema)
    if ENTRIES[group].get(name, entry) != entry:
        raise ValueError(f"{group} {name!r} is taken by {ENTRIES[group][name].target}")
    ENTRIES[group][name] = entry
    if conf_dir and conf_dir not in CONF_DIRS:
        CONF_DIRS.append(conf_dir)


@cache
def load_plugins() -> tuple[str, ...]:
    """Call every installed plugin once and return their names."""
    found = sorted(entry_points(group="seqexp.plugins"), key=lambda point: point.name)
    for point in found:
        point.load()()
    return tuple(point.name for point in found)


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def _entry(group: str, name: str) -> Entry:
    load_plugins()
    known = ENTRIES[group]
    if name not in known:
        raise UserError(
            f"{group}.name={name!r} is not known; there are {', '.join(sorted(known))}."
            + suggest(name, known)
        )
    return known[name]


def load(group: str, name: str) -> Any:
    """Import the class or function of `name` in `group`.

    Raises:
        UserError: there is no such name.
    """
    return _load(_entry(group, name).target)


def load_schema(group: str, name: str) -> type:
    """Import the configuration dataclass of `name` in `group`.

    Raises:
        UserError: there is no such name.
    """
    schema: type = _load(_entry(group, name).schema)
    return schema
