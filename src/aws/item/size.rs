//! How large DynamoDB takes an item to be
//! (docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html).

use aws_sdk_dynamodb::types::AttributeValue;

use super::{Item, name};
use crate::memory::LARGEST_ITEM_BYTES;

/// What a first claim writes, with a long name of a worker.
const CLAIM_BYTES: usize = 200;

/// Why the item leaves no room for the claim of its task, if it does.
pub(crate) fn no_room(item: &Item) -> Option<String> {
    let bytes: usize = item.iter().map(|(name, value)| name.len() + size(value)).sum();
    let most = match item.contains_key(name::REV) {
        // It has been claimed before.
        true => LARGEST_ITEM_BYTES - 20,
        false => LARGEST_ITEM_BYTES - CLAIM_BYTES,
    };
    (bytes > most).then(|| {
        format!(
            "the item has about {bytes} bytes; DynamoDB takes {LARGEST_ITEM_BYTES}, of which \
             burstd needs up to {CLAIM_BYTES} to claim it: make its payload smaller"
        )
    })
}

fn size(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(digits) => digits_size(digits),
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
        AttributeValue::Ns(numbers) => numbers.iter().map(|digits| digits_size(digits)).sum(),
        AttributeValue::Bs(all) => all.iter().map(|bytes| bytes.as_ref().len()).sum(),
        AttributeValue::L(list) => 3 + list.iter().map(|value| 1 + size(value)).sum::<usize>(),
        AttributeValue::M(map) => {
            3 + map.iter().map(|(name, value)| 1 + name.len() + size(value)).sum::<usize>()
        }
        _ => 1,
    }
}

/// Two digits take a byte, and the number one more.
fn digits_size(digits: &str) -> usize {
    digits.bytes().filter(u8::is_ascii_digit).count().div_ceil(2) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::item::{number, string};

    #[test]
    fn an_item_has_room_for_a_claim_or_says_how_large_it_is() {
        let with = |payload: usize| {
            Item::from([
                ("id".to_owned(), string("a")),
                (name::DUE.to_owned(), number(1_800_000_000)),
                (name::PAYLOAD.to_owned(), string("x".repeat(payload))),
            ])
        };
        // Names 12, the others' values 7.
        let most = LARGEST_ITEM_BYTES - CLAIM_BYTES - 19;
        assert_eq!(no_room(&with(most)), None);
        let reason = no_room(&with(most + 1)).expect("it is too large");
        assert!(reason.contains("about 409401 bytes; DynamoDB takes 409600"), "{reason}");
        let mut claimed = with(most + 100);
        claimed.insert(name::REV.to_owned(), string("r"));
        assert_eq!(no_room(&claimed), None, "it has been claimed");
    }
}
