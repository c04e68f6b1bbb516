#include "tools/eval/words.h"

#include <array>

namespace spin::eval {
namespace {

constexpr std::string_view kNouns[] = {
    "anchor",   "apple",   "apron",   "arch",     "arrow",  "basket",   "beacon",   "bell",
    "bench",    "blanket", "boat",    "bottle",   "bridge", "broom",    "bucket",   "button",
    "cabin",    "camera",  "candle",  "canvas",   "carpet", "castle",   "cellar",   "chain",
    "chair",    "chimney", "clock",   "cloud",    "coat",   "compass",  "cradle",   "curtain",
    "desk",     "diary",   "door",    "drum",     "engine", "envelope", "fabric",   "feather",
    "fence",    "ferry",   "fiddle",  "flag",     "flute",  "forest",   "fountain", "garden",
    "gate",     "glove",   "granite", "hammer",   "harbor", "hat",      "helmet",   "hinge",
    "island",   "jacket",  "jar",     "kettle",   "key",    "kite",     "ladder",   "lamp",
    "lantern",  "ledger",  "lemon",   "letter",   "lock",   "loom",     "map",      "marble",
    "mask",     "medal",   "mirror",  "mountain", "needle", "notebook", "oar",      "orchard",
    "oven",     "paddle",  "parcel",  "pearl",    "pencil", "piano",    "pillow",   "pipe",
    "plough",   "pocket",  "quilt",   "rail",     "ribbon", "river",    "robe",     "rope",
    "saddle",   "sail",    "scarf",   "shelf",    "shovel", "signal",   "spoon",    "stair",
    "stove",    "table",   "tent",    "thread",   "ticket", "tower",    "trumpet",  "tunnel",
    "umbrella", "valley",  "velvet",  "violin",   "wagon",  "wallet",   "whistle",  "window"};

constexpr std::string_view kAdjectives[] = {
    "amber",  "ancient", "autumn",  "bitter",  "blue",    "brave",   "bright",  "broken",
    "calm",   "careful", "cheap",   "clever",  "cold",    "crimson", "curious", "damp",
    "dark",   "distant", "dusty",   "eager",   "early",   "elegant", "empty",   "faint",
    "famous", "fierce",  "foreign", "fragile", "fresh",   "gentle",  "golden",  "grand",
    "gray",   "green",   "heavy",   "hollow",  "honest",  "humble",  "icy",     "idle",
    "ivory",  "jolly",   "keen",    "late",    "lively",  "lonely",  "loud",    "lucky",
    "mellow", "modest",  "muddy",   "narrow",  "noble",   "odd",     "old",     "patient",
    "plain",  "polite",  "proud",   "purple",  "quick",   "quiet",   "rare",    "restless",
    "rough",  "round",   "rusty",   "salty",   "scarlet", "secret",  "shallow", "sharp",
    "silent", "silver",  "simple",  "slow",    "smooth",  "solid",   "spare",   "steady",
    "stern",  "strange", "sturdy",  "sunny",   "swift",   "tall",    "thin",    "tidy",
    "tired",  "velvety", "violet",  "warm",    "weary",   "wild",    "wise",    "wooden"};

constexpr std::string_view kVerbs[] = {
    "admired",  "borrowed", "bought",  "brought",  "built",    "buried",   "carried",  "carved",
    "chose",    "cleaned",  "copied",  "counted",  "covered",  "dropped",  "examined", "fetched",
    "found",    "gathered", "guarded", "hid",      "held",     "ignored",  "kept",     "kicked",
    "lent",     "lifted",   "lost",    "measured", "mended",   "moved",    "noticed",  "opened",
    "ordered",  "packed",   "painted", "polished", "praised",  "promised", "pushed",   "received",
    "recalled", "refused",  "removed", "repaired", "replaced", "saved",    "sketched", "sold",
    "stored",   "traded",   "trusted", "visited",  "wanted",   "washed",   "watched",  "weighed"};

constexpr std::string_view kPlaces[] = {
    "the market",     "the mill",       "the old quay",   "the station",     "the library",
    "the north road", "the bakery",     "the lighthouse", "the courtyard",   "the workshop",
    "the orchard",    "the upper town", "the ferry pier", "the town hall",   "the school",
    "the quarry",     "the inn",        "the vineyard",   "the post office", "the lower field"};

constexpr std::string_view kNames[] = {
    "Ada",   "Bruno", "Clara",  "Dario", "Edith",  "Felix", "Greta", "Hugo",  "Irene",
    "Jonas", "Karin", "Leo",    "Marta", "Nils",   "Olga",  "Pavel", "Quinn", "Rosa",
    "Simon", "Thea",  "Ulrich", "Vera",  "Walter", "Yara",  "Zeno"};

}  // namespace

std::span<const std::string_view> Nouns() {
  return kNouns;
}
std::span<const std::string_view> Adjectives() {
  return kAdjectives;
}
std::span<const std::string_view> Verbs() {
  return kVerbs;
}
std::span<const std::string_view> Places() {
  return kPlaces;
}
std::span<const std::string_view> Names() {
  return kNames;
}

std::string DistinctWord(uint32_t i) {
  for (const auto words : {Nouns(), Adjectives(), Verbs()}) {
    if (i < words.size()) return std::string(words[i]);
    i -= static_cast<uint32_t>(words.size());
  }
  // Adjectives and nouns, then with a number behind.
  const auto nouns = static_cast<uint32_t>(Nouns().size());
  const auto pairs = nouns * static_cast<uint32_t>(Adjectives().size());
  const std::string number = i < pairs ? "" : std::to_string(i / pairs);
  return std::string(Adjectives()[i % pairs / nouns]) + "-" + std::string(Nouns()[i % nouns]) +
         number;
}

}  // namespace spin::eval
