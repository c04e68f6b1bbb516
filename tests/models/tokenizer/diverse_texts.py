"""Strings that try a tokenizer: every script, emoji, marks, code, digits, white space, controls, special tokens."""

import random
import unicodedata

SCRIPTS = [
    "The quick brown fox jumps over the lazy dog. It's we'll they've I'M DON'T you'd isn't ſ'ſ 'S",
    "Zażółć gęślą jaźń, naïve café, Größenwahn, Ångström, smørrebrød, İstanbul ıssız, ǅungla",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Їжак. Ђак", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία, ᾧ",
    "敏捷的棕色狐狸跳过懒狗。你好，世界！人工智能", "いろはにほへと ちりぬるを カタカナ ﾊﾝｶｸ がぎぐ", "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다",
    "نص حكيم له سر قاطع وذو شأن عظيم ١٢٣٤ مكتوب", "דג סקרן שט בים מאוכזב שָׁלוֹם",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा क़ १२३",
    "আমি বাংলায় গান গাই ড়ঢ়", "ਸਤ ਸ੍ਰੀ ਅਕਾਲ", "நான் தமிழ் பேசுகிறேன் ொ", "నేను తెలుగు", "ಕನ್ನಡ ೊ", "മലയാളം ൊ",
    "ไทยเป็นภาษา กำลัง ๑๒๓",
    "ພາສາລາວ", "မြန်မာဘာသာ", "ភាសាខ្មែរ", "བོད་སྐད་ གཱི", "አማርኛ ትግርኛ", "ქართული ენა", "Հայերեն լեզու և", "ᏣᎳᎩ",
    "ᓄᓇᕗᑦ",
    "ᚠᛇᚻ᛫ᛒᛦᚦ", "ᠮᠣᠩᠭᠣᠯ\u180e", "𐌰𐌱𐌲 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚 ℝ ² ½ Ⅷ ① ㊿ ⅷ", "Tiếng Việt: Tôi có thể ăn thủy tinh",
    "Yorùbá ẹ̀kọ́",
    "𠀀𠮷𪚥 𲍿 \U0002ebf5\U00031360", "\U0001e4d0\U0001e030\U00011f02 \U00010d40\U00010d41 \u0897\u1c89\ua7cb",
]
EMOJI = ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "🧑🏿‍🚀", "☺", "1️⃣", "🫨", "©®™", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"]
MARKS = ["e\u0301", "A\u030a", "o\u0302\u0323", "\u1100\u1161\u11a8", "\u212b", "\u0344", "q\u0307\u0323",
         "\u0958", "ｶﾞ", "か\u3099",
         "\u0f71\u0f72", "s\u0323\u0307", "\ufb01", "\u2126", "\u1e9b\u0323", "\u0390", "\uac00\u11a8",
         "a\u0300\u0301\u0302\u0316", "\u0301a",
         "\u09c7\u09be", "\u115f\u1160", "\U0001d15e", "\uf900", "\u2f800", "\u037e", "\u1fee", "\u0340",
         "\u1112\u1161"]
CODE = ["int main(void) {\n\treturn 0;\n}\n", "def f(x):\n    return x**2  # square\n\n",
        "SELECT * FROM t WHERE a<>'b';", "<div class=\"x\">&nbsp;</div>\r\n",
        "{\"k\": [1, 2.5e-3, null]}", "a->b::c<T>&& d[3] |= ~0x7fULL;", "https://example.com/a?b=c&d=%20#e",
        "\\alpha_{i}^{2} \\leq \\frac{1}{2}",
        "fn main() -> Result<(), E> { println!(\"{x:?}\"); }", "$ ls -la | grep '^d' > /dev/null 2>&1",
        "camelCaseIdentifier snake_case_name SCREAMING_CASE",
        "/* ---- */ // ====", "user@mail.org", "日本語コード = \"文字列\";"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\r", " \n", "\n ", "\u00a0", "\u3000", "\u2028",
          "\u0085", "\u200b", "\ufeff", "\v", "\f",
          "\u180e", "\u202f", "\u1680", "\u2003", "\x1c", "\x1f"]
CONTROLS = ["\x00", "\x01", "\x07", "\x1b[0m", "\x7f", "\x80", "\u200d", "\u200e", "\u202e", "\ufffd", "\uffff",
            "\ufdd0", "\U0010ffff", "\ue000"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>",
            "<|begin_of_text|>", "<|eot_id|>",
            "<|start_header_id|>", "<|reserved_special_token_5|>", "<|im_start", "|>", "<|", "<|end_of_text|>",
            "<repo_name>", "<jupyter_code>"]


def word(rng):
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCDEXYZ") for _ in range(rng.randint(1, 12)))


def random_unicode(rng):
    top = rng.choice([0x80, 0x100, 0x800, 0x3100, 0x10000, 0x20000, 0x110000])
    out = []
    while len(out) < rng.randint(1, 20):
        c = rng.randrange(top)
        if not 0xD800 <= c < 0xE000:
            out.append(chr(c))
    return "".join(out)


def piece(rng, specials):
    kind = rng.randrange(14)
    if kind == 0:
        text = rng.choice(SCRIPTS)
        start = rng.randrange(len(text))
        return text[start:start + rng.randint(1, 40)]
    if kind == 1:
        return rng.choice(SCRIPTS)
    if kind == 2:
        return rng.choice(EMOJI) * rng.choice([1, 1, 1, 3])
    if kind == 3:
        return rng.choice(MARKS) * rng.choice([1, 1, 2])
    if kind == 4:
        return rng.choice(CODE)
    if kind == 5:
        return "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 15)))
    if kind == 6:
        return rng.choice(SPACES) * rng.choice([1, 1, 2, 3, 7, 20])
    if kind == 7:
        return "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 6)))
    if kind == 8:
        return rng.choice(CONTROLS)
    if kind == 9:
        return rng.choice(specials)
    if kind == 10:
        return rng.choice(["'s", "'T", "'re", "'VE", "'m", "'Ll", "'d", "'ſ", "’s", "''", "!?", "...", "---",
            "=" * 30, "()[]{}", "«»", "„“"])
    if kind == 11:
        return random_unicode(rng)
    if kind == 12:
        return word(rng) * rng.choice([1, 1, 1, 30])
    return " ".join(word(rng) for _ in range(rng.randint(1, 8)))


def diverse_texts(count, seed, specials=()):
    """`count` strings; `specials` are more strings to strew in (the added tokens of the file under test)."""
    rng = random.Random(seed)
    specials = SPECIALS + list(specials)
    texts = ["", " ", "\n", "a", "\x00"] + SCRIPTS + EMOJI + MARKS + CODE + SPACES + CONTROLS + SPECIALS
    texts += ["a" * 3000, " " * 3000, "ab " * 1000, "\u0301\u0316" * 500, "1" * 1000, "é" * 1000,
        "\n" * 500 + "x", "中" * 1000]
    while len(texts) < count:
        text = "".join(piece(rng, specials) for _ in range(rng.choice([1, 2, 3, 5, 8, 20])))
        if rng.random() < 0.1:
            text = unicodedata.normalize("NFD", text)
        texts.append(text)
    return texts[:count]
