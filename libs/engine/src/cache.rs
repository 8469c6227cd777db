//! Values by key within a bound of their bytes.

use std::{collections::HashMap, hash::Hash};

/// Keeps what was used lately: when the younger half is full, it becomes the older one, and what was the older half and was
/// not asked for since is forgotten.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    young: HashMap<K, (V, usize)>,
    young_bytes: usize,
    old: HashMap<K, (V, usize)>,
    half: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// An empty one that holds at most so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { young: HashMap::new(), young_bytes: 0, old: HashMap::new(), half: bytes_max / 2 }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (value, bytes) = self.old.remove(key)?;
        self.put(key.clone(), value.clone(), bytes);
        Some(value)
    }

    /// Keeps a value of so many bytes; one that takes more than half of the room is not kept.
    pub(crate) fn put(&mut self, key: K, value: V, bytes: usize) {
        if bytes > self.half {
            return;
        }
        if self.young_bytes + bytes > self.half {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.old.remove(&key);
        self.young_bytes += bytes;
        if let Some((_, before)) = self.young.insert(key, (value, bytes)) {
            self.young_bytes -= before;
        }
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        let of = |half: &HashMap<K, (V, usize)>| half.values().map(|(_, bytes)| bytes).sum::<usize>();
        of(&self.young) + of(&self.old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_what_is_used_stays() {
        let mut cache = Cache::new(1_000);
        cache.put("kept", 0, 10);
        for i in 1..1_000 {
            cache.put(Box::leak(i.to_string().into_boxed_str()), i, 7 + i % 50);
            assert_eq!(cache.get(&"kept"), Some(0), "what is used stays");
            assert!(cache.bytes() <= 1_000, "{}", cache.bytes());
        }
        assert_eq!(cache.get(&"1"), None, "what is not used goes");
        cache.put("large", 1, 501);
        assert_eq!(cache.get(&"large"), None, "nothing takes more than half");
        cache.put("kept", 2, 20);
        cache.put("kept", 3, 30);
        assert_eq!(cache.get(&"kept"), Some(3));
        assert!(cache.bytes() <= 1_000);
    }
}
