//! English-like text of any length, the same at every run.

const SUBJECTS: [&str; 16] = [
    "The harbour master",
    "A retired surveyor",
    "The night train",
    "Our neighbour's workshop",
    "The committee",
    "An apprentice baker",
    "The old lighthouse",
    "Every second visitor",
    "The mountain school",
    "A patient gardener",
    "The river authority",
    "Her youngest brother",
    "The travelling library",
    "A careful translator",
    "The village orchestra",
    "The weather station",
];
const VERBS: [&str; 16] = [
    "measured",
    "described",
    "repaired",
    "forgot",
    "borrowed",
    "painted",
    "followed",
    "collected",
    "explained",
    "counted",
    "moved",
    "remembered",
    "compared",
    "inspected",
    "sold",
    "returned",
];
const OBJECTS: [&str; 16] = [
    "three copper kettles",
    "the map of the northern valley",
    "a box of unopened letters",
    "the longest bridge in the district",
    "several hundred wooden chairs",
    "the recipe for barley bread",
    "a collection of pressed flowers",
    "the timetable of the coastal ferry",
    "an almost empty notebook",
    "the broken telescope",
    "two barrels of salted fish",
    "the minutes of the last meeting",
    "a painting of the winter market",
    "the keys to the upper gate",
    "the results of the spring census",
    "a bicycle with one brake",
];
const CIRCUMSTANCES: [&str; 12] = [
    "before the snow had melted",
    "while nobody was looking",
    "on the first Monday of the month",
    "with the help of a borrowed ladder",
    "because the road was closed",
    "although the rain did not stop",
    "in less than an afternoon",
    "as the agreement required",
    "for the second time that year",
    "without asking for payment",
    "near the mouth of the river",
    "after a long discussion",
];

/// `count` sentences in paragraphs of seven. Each one has a number, so that no two are alike.
pub fn sentences(count: usize) -> Vec<String> {
    // The constants of a well-known linear congruential generator; only that it never changes matters.
    let mut state: u64 = 2026;
    let mut pick = |list: &[&'static str]| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        list[(state >> 33) as usize % list.len()]
    };
    (1..=count)
        .map(|number| {
            let end = if number % 7 == 0 { ".\n\n" } else { ". " };
            format!(
                "{} {} {} {}, as note {number} says{end}",
                pick(&SUBJECTS),
                pick(&VERBS),
                pick(&OBJECTS),
                pick(&CIRCUMSTANCES),
            )
        })
        .collect()
}

/// The longest text whose size by `measure` is at most `size`, filled up with short words to reach it exactly where
/// that is possible.
pub fn text_of_size(size: usize, measure: impl Fn(&str) -> usize) -> String {
    // No sentence is shorter than ten tokens.
    let words: Vec<String> = sentences(size / 10 + 10)
        .concat()
        .split_inclusive(' ')
        .map(str::to_owned)
        .collect();
    let mut fits = 0;
    let mut exceeds = words.len() + 1;
    while exceeds - fits > 1 {
        let middle = fits.midpoint(exceeds);
        if measure(&words[..middle].concat()) <= size {
            fits = middle;
        } else {
            exceeds = middle;
        }
    }
    let mut text = words[..fits].concat().trim_end().to_owned();
    loop {
        let longer = format!("{text} and");
        if measure(&longer) > size {
            return text;
        }
        text = longer;
    }
}

/// Short questions about such a text. Asked in turn, so that no answer can be taken from the one before.
pub const QUESTIONS: [&str; 4] = [
    "Who is mentioned first in these notes, and what did they do, in one sentence?",
    "Which of the notes is about a bicycle, and what happened to it, in one sentence?",
    "What do the notes say about the river authority, in one or two sentences?",
    "Which note would you read again, and for what reason, in one sentence?",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_size_asked_for() {
        let words = |text: &str| text.split_whitespace().count();
        for size in [40, 512, 4096] {
            assert_eq!(words(&text_of_size(size, words)), size);
        }
    }

    #[test]
    fn the_text_is_the_same_each_time_and_a_longer_one_begins_alike() {
        assert_eq!(sentences(20), sentences(20));
        assert_eq!(sentences(20)[..10], sentences(10));
    }
}
