//! Plain counters that a thread bumps for itself and the binary adds up.

/// Declares a struct of `u64` counters with `merge`, `fields` and docs.
///
/// ```
/// offpath_types::counters! {
///     /// What the example counted.
///     pub struct ExampleCounters {
///         /// Frames seen.
///         frames_total,
///     }
/// }
/// let mut a = ExampleCounters::default();
/// a.frames_total += 2;
/// a.merge(&a.clone());
/// assert_eq!(a.fields(), [("frames_total", 4)]);
/// ```
#[macro_export]
macro_rules! counters {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* $field:ident),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* pub $field: u64),* }
        impl $name {
            /// Adds the counts of `other`.
            pub fn merge(&mut self, other: &Self) { $(self.$field += other.$field;)* }
            /// Returns every counter with its name, in the order of declaration.
            pub fn fields(&self) -> [(&'static str, u64); [$(stringify!($field)),*].len()] {
                [$((stringify!($field), self.$field)),*]
            }
        }
    };
}
