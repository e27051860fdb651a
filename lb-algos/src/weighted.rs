//! Weighted draws, the part that [`Random`](crate::Random) and [`LeastRequest`](crate::LeastRequest) share.
//!
//! A table built per rebuild makes a draw O(1) whatever the fleet's size; it knows nothing of eligibility, so draws that
//! hit an ineligible endpoint are thrown away. Throwing away keeps the proportions among the rest exact. When too many
//! are thrown away the caller scans instead, which has the same distribution.

use crate::{Fleet, Rng, candidate::stake};

/// Draws before giving up on the table. With half of the weight eligible, 1 in 256 picks then scans; with 90 %, 1 in 10⁸.
const TRIES: usize = 8;

/// Alias table: a draw from `n` weights with two random numbers and one comparison, exact in integers.
///
/// Each of `n` columns is as high as the sum of the weights; the part below `cut` belongs to the column's own endpoint,
/// the rest to `alias`. Walker 1974; built as in Vose, "A Linear Algorithm for Generating Random Numbers with a Given
/// Distribution", IEEE TSE 17(9), 1991.
#[derive(Debug, Default)]
pub(crate) struct Table {
    columns: Vec<Column>,
    height: u64,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    cut: u64,
    alias: u32,
    /// Of the column's own endpoint, as built.
    weight: u32,
}

impl Table {
    /// O(n) time and space. Empty when no weight is above 0.
    pub(crate) fn build<F: Fleet + ?Sized>(&mut self, fleet: &F) {
        self.clear();
        // Columns are numbered in 32 bits. A larger fleet has no table; its picks scan.
        let Ok(count) = u32::try_from(fleet.len()) else { return };
        // Read once: `fleet` may answer otherwise the next time.
        let weights: Vec<u32> = (0..count).map(|index| fleet.weight(index as usize)).collect();
        self.height = weights.iter().map(|&weight| u64::from(weight)).sum();
        if self.height == 0 {
            return;
        }
        // Scaled so that the average is the height; 32 + 32 bits, so it fits.
        self.columns.extend((0..count).zip(weights).map(|(alias, weight)| Column {
            cut: u64::from(weight) * u64::from(count),
            alias,
            weight,
        }));
        let (mut low, mut high): (Vec<u32>, Vec<u32>) =
            (0..count).partition(|&index| self.columns[index as usize].cut < self.height);
        while let (Some(&giver), Some(taker)) = (high.last(), low.pop()) {
            self.columns[taker as usize].alias = giver;
            let given = self.height - self.columns[taker as usize].cut;
            let left = &mut self.columns[giver as usize].cut;
            *left -= given;
            if *left < self.height {
                low.extend(high.pop());
            }
        }
    }

    /// Weight of an endpoint on average, at the last build; 0 or not a number only when it draws nothing.
    pub(crate) fn mean(&self) -> f64 {
        self.height as f64 / self.columns.len() as f64
    }

    pub(crate) fn clear(&mut self) {
        self.columns.clear();
        self.height = 0;
    }

    /// An eligible endpoint other than `except`, with probability proportional to its weight: at the last build, or as it is
    /// now if that is less (slow start); one that has grown since counts in full only after the next build.
    ///
    /// O(1), no allocation. `None` when [`TRIES`] draws found none: there may still be one, [`scan`] knows.
    pub(crate) fn draw<F: Fleet + ?Sized>(
        &self,
        fleet: &F,
        except: Option<usize>,
        rng: &mut Rng,
    ) -> Option<usize> {
        if self.columns.is_empty() || self.columns.len() != fleet.len() {
            return None;
        }
        (0..TRIES).find_map(|_| {
            let index = self.column(rng);
            (except != Some(index) && self.accepts(fleet, index, rng)).then_some(index)
        })
    }

    /// Throws away draws of an endpoint in the proportion in which its weight has fallen.
    fn accepts<F: Fleet + ?Sized>(&self, fleet: &F, index: usize, rng: &mut Rng) -> bool {
        let built = self.columns[index].weight;
        stake(fleet, index).is_some_and(|weight| weight >= built || rng.below(built) < weight)
    }

    fn column(&self, rng: &mut Rng) -> usize {
        let own = rng.below(u32::try_from(self.columns.len()).unwrap_or(u32::MAX));
        let Column { cut, alias, .. } = self.columns[own as usize];
        let drawn = if rng.below_u64(self.height) < cut { own } else { alias };
        drawn as usize
    }
}

/// An eligible endpoint with probability proportional to its weight; `None` only when no eligible one has weight > 0.
///
/// O(n), no allocation, one pass, so an endpoint that turns ineligible meanwhile does no harm. Each one replaces the
/// choice so far with probability weight / sum so far. Chao, "A general purpose unequal probability sampling plan",
/// Biometrika 69(3), 1982.
pub(crate) fn scan<F: Fleet + ?Sized>(fleet: &F, rng: &mut Rng) -> Option<usize> {
    let mut lot = Lot::default();
    for index in 0..fleet.len() {
        if let Some(weight) = stake(fleet, index) {
            lot.enter(index, weight, rng);
        }
    }
    lot.winner
}

/// A draw among entrants that come one by one, proportional to weight.
#[derive(Debug, Default)]
pub(crate) struct Lot {
    pub(crate) winner: Option<usize>,
    sum: u64,
}

impl Lot {
    /// `weight` must be > 0. A lone entrant costs no random number.
    pub(crate) fn enter(&mut self, index: usize, weight: u32, rng: &mut Rng) {
        self.sum += u64::from(weight);
        if self.winner.is_none() || rng.below_u64(self.sum) < u64::from(weight) {
            self.winner = Some(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Weights(Vec<u32>);

    impl Fleet for Weights {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn id(&self, index: usize) -> u64 {
            index as u64
        }

        fn weight(&self, index: usize) -> u32 {
            self.0[index]
        }

        fn eligible(&self, _: usize) -> bool {
            true
        }

        fn in_flight(&self, _: usize) -> u32 {
            0
        }
    }

    /// Area of each endpoint over all columns; its share is area / (height × columns).
    fn areas(table: &Table) -> Vec<u64> {
        let mut areas = vec![0; table.columns.len()];
        for (own, column) in table.columns.iter().enumerate() {
            let cut = column.cut.min(table.height);
            areas[own] += cut;
            areas[column.alias as usize] += table.height - cut;
        }
        areas
    }

    #[test]
    fn the_table_gives_every_endpoint_exactly_its_weight() {
        let mut rng = Rng::seeded(1);
        let bits: Vec<u32> = (0..200).map(|_| rng.below(32)).collect();
        let random = bits.iter().map(|bits| rng.below(1 << bits)).collect();
        for weights in
            [vec![1], vec![5, 1, 1], vec![0, 3, 0], vec![u32::MAX; 9], vec![1, u32::MAX, 0], random]
        {
            let mut table = Table::default();
            table.build(&Weights(weights.clone()));
            let expected: Vec<u64> = weights.iter().map(|&w| u64::from(w) * weights.len() as u64).collect();
            assert_eq!(areas(&table), expected, "weights {weights:?}");
        }
    }

    #[test]
    fn a_table_without_weight_draws_nothing() {
        let mut table = Table::default();
        for weights in [vec![], vec![0, 0]] {
            let fleet = Weights(weights);
            table.build(&fleet);
            assert_eq!(table.draw(&fleet, None, &mut Rng::seeded(1)), None);
        }
    }

    #[test]
    fn a_table_of_another_fleet_draws_nothing() {
        let mut table = Table::default();
        table.build(&Weights(vec![1, 1]));
        assert_eq!(table.draw(&Weights(vec![1, 1, 1]), None, &mut Rng::seeded(1)), None);
    }

    #[test]
    fn the_excepted_endpoint_is_never_drawn() {
        let fleet = Weights(vec![1000, 1]);
        let (mut table, mut rng) = (Table::default(), Rng::seeded(1));
        table.build(&fleet);
        assert!((0..1000).all(|_| table.draw(&fleet, Some(0), &mut rng) != Some(0)));
    }
}
