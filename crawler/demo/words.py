"""The titles of the embedded site: in many scripts, some of them odd enough to break things."""

Words = tuple[tuple[str, ...], tuple[str, ...], str]

_ENGLISH: Words = (
    ("Midnight", "Golden", "Broken", "Electric", "Paper", "Silent", "Winter", "Neon", "Lonesome"),
    ("River", "Train", "Heart", "Avenue", "Letter", "Summer", "Radio", "Lighthouse", "Machine"),
    " ",
)
_SCRIPTS: tuple[Words, ...] = (
    (("L'été", "Où va", "Déjà", "Ça, c'est"), ("la forêt", "l'œuvre", "Noël", "ma naïveté"), " "),
    (("Straße nach", "Über", "Grüße aus"), ("Köln", "den Flüssen", "Österreich"), " "),
    (("Canção do", "São", "Coração de"), ("Sertão", "João", "Verão"), " "),
    (("İstanbul'da", "Güneşli", "Şarkısız"), ("gölge", "çiçek", "ağaç"), " "),
    (("Đêm", "Một", "Những"), ("Việt Nam", "người phố", "mưa đầu mùa"), " "),
    (("Η νύχτα", "Το τραγούδι", "Ένα καράβι"), ("της θάλασσας", "των αστεριών"), " "),
    (("Последний", "Тихий", "Северный"), ("вечер", "поезд", "ветер"), " "),
    (("أغنية", "ليلة", "طريق"), ("القمر", "البحر", "المدينة"), " "),
    (("שיר", "לילה", "דרך"), ("הירח", "הים", "ירושלים"), " "),
    (("شب", "آواز", "باران"), ("تهران", "بی‌پایان", "پاییز"), " "),
    (("रात", "गीत", "सपनों"), ("का शहर", "की बारिश", "की नदी"), " "),
    (("คืน", "เพลง", "ทาง"), ("ของดวงจันทร์", "แห่งทะเล", "กลับบ้าน"), ""),
    (("午夜", "金色", "無聲"), ("列車", "河流", "的信"), ""),
    (("夜の", "最後の", "春の"), ("手紙", "ラジオ", "うみ"), ""),
    (("한밤의", "마지막", "푸른"), ("기차", "편지", "바다"), " "),
    (("ღამის", "ჩემი", "ძველი"), ("სიმღერა", "მდინარე", "ქალაქი"), " "),
    (("የሌሊት", "የእኔ", "አሮጌ"), ("ዘፈን", "ወንዝ", "ከተማ"), " "),
)
_ODD_TITLES = (
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://127.0.0.1/","free")',
    "+1+1",
    "-2+3",
    "@SUM(A1:A9)",
    '<script>alert("song")</script>',
    "</td></table><b>bold &amp; brash",
    'She said "no", twice',
    "It's a 'quoted' one; DROP TABLE songs;--",
    "Line one\nLine two",
    "Carriage\r\nreturn",
    "Tab\there, back\\slash",
    "Line\u2028and paragraph\u2029separators",
    "\u202eoverride from right to left\u202c",
    "Mixed \u05e9\u05dc\u05d5\u05dd and مرحبا, 123",
    "🎵🔥👩‍👩‍👧‍👦🏳️‍🌈",
    "Cafe\u0301 de\u0301compose\u0301",
    "Z\u0336a\u0336l\u0336g\u0336o\u0336",
    "\u200bzero\u200bwidth\ufeff",
    "\x1b[31mred\x1b[0m",
    " leading and trailing ",
    "null",
    "NaN",
    "1984",
    "007",
    "1e3",
    "true",
    "2020-01-01",
    "a,b;c|d",
    "{{ template }} ${HOME} %s %(x)s {0}",
    "../../etc/passwd",
    "",
    "The Very Long One " * 20,
)


def make_title(bits: int) -> str:
    """Make a title out of some 30 bits, the same for the same bits.

    Three in 100 are odd; of the others half are English, half in one of the other scripts.
    """
    kind = bits % 100
    if kind < 3:
        return _ODD_TITLES[(bits >> 7) % len(_ODD_TITLES)]
    words = _ENGLISH if kind < 50 else _SCRIPTS[(bits >> 7) % len(_SCRIPTS)]
    first, second, joint = words
    return first[(bits >> 13) % len(first)] + joint + second[(bits >> 19) % len(second)]
