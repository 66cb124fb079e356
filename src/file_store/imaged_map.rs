//! A map of which an image can be taken: it is given out piece by piece, as it was when the image was begun, while the
//! map goes on changing.
//!
//! The image is given out in the order of the keys. What changes behind the place that it has come to was given out
//! already. What changes before it is kept as it was, once, until the image has passed it. So an image costs memory
//! for what changes meanwhile and nothing for what does not; and while none is taken, a change costs one look at
//! whether one is.

use std::collections::BTreeMap;
use std::ops::{Bound, Deref};

use crate::mutants::mutant;

/// What looking at a key that the image does not have counts, in bytes: a slice must end also where there are many.
const SKIPPED_BYTES: usize = 32;

/// The map. Reading goes through to the [`BTreeMap`]; what changes it is here.
#[derive(Clone, Debug)]
pub(super) struct ImagedMap<K, V> {
    map: BTreeMap<K, V>,
    image: Option<Box<Image<K, V>>>,
}

#[derive(Clone, Debug)]
struct Image<K, V> {
    /// The last key that was given out or passed over.
    passed: Option<K>,
    /// Of keys behind that one that were changed since the image was begun: what they had then, if they were there.
    before: BTreeMap<K, Option<V>>,
}

impl<K, V> Default for ImagedMap<K, V> {
    fn default() -> Self {
        Self { map: BTreeMap::new(), image: None }
    }
}

impl<K, V> Deref for ImagedMap<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.map
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for ImagedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(items: I) -> Self {
        Self { map: items.into_iter().collect(), image: None }
    }
}

impl<K: Ord + Clone, V: Clone> ImagedMap<K, V> {
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.keep(&key, true);
        self.map.insert(key, value);
    }

    pub(super) fn remove_entry(&mut self, key: &K) -> Option<(K, V)> {
        self.keep(key, false);
        self.map.remove_entry(key)
    }

    /// The value, which will be changed.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.keep(key, false);
        self.map.get_mut(key)
    }

    /// Begins an image of the map as it is.
    pub(super) fn begin_image(&mut self) {
        self.image = Some(Box::new(Image { passed: None, before: BTreeMap::new() }));
    }

    pub(super) fn drop_image(&mut self) {
        self.image = None;
    }

    /// Gives the next items of the image to `give`, which tells how many bytes it made of one, until these are
    /// `bytes_max` or more. Whether there are more; if not, the image has ended.
    ///
    /// # Panics
    /// If no image is taken.
    pub(super) fn image_slice(&mut self, bytes_max: usize, mut give: impl FnMut(&K, &V) -> usize) -> bool {
        let image = self.image.as_mut().expect("an image is being taken");
        let begin = image.passed.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut present = self.map.range((begin, Bound::Unbounded)).peekable();
        let mut passed = None;
        let mut bytes = 0;
        while bytes < bytes_max {
            let changed = image.before.first_key_value().map(|(key, _)| key);
            let next = present.peek().map(|(key, _)| *key);
            match (next, changed) {
                (None, None) => break,
                (Some(key), _) if changed.is_none_or(|changed| key < changed) => {
                    let (key, value) = present.next().expect("it was seen");
                    bytes += give(key, value);
                    passed = Some(key.clone());
                }
                _ => {
                    present.next_if(|(key, _)| Some(*key) == changed);
                    let (key, value) = image.before.pop_first().expect("it was seen");
                    bytes += value.map_or(SKIPPED_BYTES, |value| give(&key, &value));
                    passed = Some(key);
                }
            }
        }
        let has_more = present.peek().is_some() || !image.before.is_empty();
        if has_more {
            image.passed = passed.or(image.passed.take());
        } else {
            self.image = None;
        }
        has_more
    }

    /// Keeps what the image needs of a key that is about to change, or to come.
    fn keep(&mut self, key: &K, comes: bool) {
        let Some(image) = &mut self.image else { return };
        if mutant!("image-shows-later-changes") {
            return;
        }
        if image.passed.as_ref().is_none_or(|passed| key > passed) && !image.before.contains_key(key) {
            let value = self.map.get(key).cloned();
            if value.is_some() || comes {
                image.before.insert(key.clone(), value);
            }
        }
    }
}
