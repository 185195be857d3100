//! What a long reading costs, as far as it can be told before.

/// How much there is, as DescribeTable tells it: DynamoDB counts every six hours or so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes in the table.
    pub table_bytes: u64,
    /// Items in the table.
    pub table_items: u64,
    /// Bytes in the index.
    pub index_bytes: u64,
    /// Entries in the index.
    pub index_items: u64,
}

/// An eventually consistent read of so many bytes is a read unit; a Scan or a Query is charged for
/// what it passes, ...
/// (docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html)
const BYTES_OF_A_UNIT: u64 = 8192;

/// ... and a single item for each begun half of that, half a unit.
const BYTES_OF_A_STEP: u64 = 4096;

/// A write takes a unit for each begun KB.
const BYTES_OF_A_WRITE: u64 = 1024;

/// What is read, if all is read that may have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes that are passed, as DynamoDB counts them.
    pub bytes: u64,
    /// Of what.
    pub of: &'static str,
    /// Items that are looked up one by one.
    pub items: u64,
    /// What looking one up takes, in half read units.
    halves_each: u64,
}

impl Sizes {
    /// The whole index, without the items.
    pub fn index(&self) -> Extent {
        Extent::passing(self.index_bytes, "the index due-index")
    }

    /// The whole table.
    pub fn table(&self) -> Extent {
        Extent::passing(self.table_bytes, "the table")
    }

    /// The whole index, and the whole table after it.
    pub fn index_and_table(&self) -> Extent {
        let bytes = self.index_bytes.saturating_add(self.table_bytes);
        Extent::passing(bytes, "the table and its index")
    }

    /// What changing so many items takes, in write units, where each is written, and so many
    /// entries of the index with it.
    pub fn write_units(&self, items: u64, entries: u64) -> u64 {
        items.saturating_mul(self.item_bytes().div_ceil(BYTES_OF_A_WRITE).max(1) + entries)
    }

    /// How large an item is on average.
    fn item_bytes(&self) -> u64 {
        self.table_bytes.div_ceil(self.table_items.max(1))
    }
}

impl Extent {
    fn passing(bytes: u64, of: &'static str) -> Self {
        Extent { bytes, of, items: 0, halves_each: 0 }
    }

    /// The table, or of its items no more than `most`.
    pub(super) fn of_table(sizes: &Sizes, most: Option<u32>) -> Self {
        let extent = sizes.table();
        let of_most = most.map(|most| u64::from(most) * sizes.item_bytes());
        Extent { bytes: extent.bytes.min(of_most.unwrap_or(u64::MAX)), ..extent }
    }

    /// The index and the items that it lists, or no more than `most` of them.
    pub(super) fn of_index_and_items(sizes: &Sizes, most: Option<u32>) -> Self {
        let entry = sizes.index_bytes.div_ceil(sizes.index_items.max(1));
        let items = sizes.index_items.min(most.map_or(u64::MAX, u64::from));
        Extent {
            bytes: items.saturating_mul(entry).min(sizes.index_bytes),
            items,
            halves_each: sizes.item_bytes().div_ceil(BYTES_OF_A_STEP).max(1),
            ..sizes.index()
        }
    }

    /// What it takes, in read units.
    pub fn read_units(&self) -> u64 {
        let looked_up = self.items.saturating_mul(self.halves_each).div_ceil(2);
        self.bytes.div_ceil(BYTES_OF_A_UNIT).saturating_add(looked_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes {
        table_bytes: 40_000_000,
        table_items: 20_000,
        index_bytes: 819_200,
        index_items: 10_000,
    };

    #[test]
    fn what_is_passed_is_counted_by_bytes_and_what_is_looked_up_by_items() {
        assert_eq!(SIZES.table().read_units(), 4883);
        assert_eq!(SIZES.index().read_units(), 100);
        let all = Extent::of_index_and_items(&SIZES, None);
        assert_eq!((all.bytes, all.items, all.read_units()), (819_200, 10_000, 5100));
        let few = Extent::of_index_and_items(&SIZES, Some(100));
        assert_eq!((few.bytes, few.items, few.read_units()), (8200, 100, 52));
        assert_eq!(Extent::of_table(&SIZES, Some(100)).bytes, 200_000);
        let large = Sizes { table_bytes: 20_000 * 9000, ..SIZES };
        assert_eq!(Extent::of_index_and_items(&large, None).read_units(), 100 + 15_000);
    }

    #[test]
    fn a_change_writes_the_item_and_its_place_in_the_index() {
        assert_eq!(SIZES.write_units(10, 1), 30, "two for 2,000 bytes, and one");
        assert_eq!(Sizes::default().write_units(10, 2), 30);
    }
}
