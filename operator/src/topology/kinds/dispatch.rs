//! The macro `kinds!` makes the types that hold an object of any kind from the list of kinds. Each function of
//! [`super::Kind`] is called here, and nowhere else, for an object whose kind is only known at run time.

macro_rules! kinds {
    ($($list:ident: $Kind:ident),+ $(,)?) => {
        /// An object on a broker, of any kind.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum BrokerObject {
            $($Kind(<$Kind as Kind>::Object)),+
        }

        /// The objects that are on a broker, by identity. Only the lists that a pass needs are filled.
        #[derive(Default)]
        pub(crate) struct Inventory {
            /// The virtual hosts by name, with the type of the queues that are declared without one.
            pub(super) vhosts: HashMap<String, Option<String>>,
            $(pub(super) $list: HashMap<Identity, <$Kind as Kind>::Object>),+
        }

        /// The lists of a broker that a pass needs. The broker is not asked for the others: a pass over thousands of
        /// queues need not list as many bindings.
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct Lists {
            $($list: bool),+
        }

        const RANKS: &[u8] = &[$(<$Kind as Kind>::RANK),+];

        /// Visits all kinds, in the order of the list.
        pub(crate) fn visit_kinds(visitor: &mut impl KindVisitor) {
            $(visitor.visit::<$Kind>();)+
        }

        $(impl From<<$Kind as Kind>::Object> for BrokerObject {
            fn from(object: <$Kind as Kind>::Object) -> Self {
                Self::$Kind(object)
            }
        })+

        impl Lists {
            fn or(self, other: Self) -> Self {
                Self { $($list: self.$list || other.$list),+ }
            }
        }

        impl Inventory {
            /// Asks the broker for the virtual hosts, and for the lists that the `wanted` objects need, all at once.
            ///
            /// # Errors
            /// The broker does not answer, or refuses.
            pub(crate) async fn list(
                client: &Client,
                wanted: impl Iterator<Item = &BrokerObject>,
            ) -> Result<Self, Error> {
                let needed = wanted.fold(Lists::default(), |needed, object| needed.or(object.lists()));
                let (vhosts, $($list),+) =
                    tokio::try_join!(client.vhosts(), $(list_if::<$Kind>(needed.$list, client)),+)?;
                let vhosts = vhosts.into_iter().map(|vhost| (vhost.name, vhost.default_queue_type)).collect();
                Ok(Self { vhosts, $($list),+ })
            }

            /// Adds an object that has just been declared.
            pub(crate) fn insert(&mut self, object: &BrokerObject) {
                match object {
                    $(BrokerObject::$Kind(object) => drop(self.$list.insert($Kind::identity(object), object.clone()))),+
                }
            }
        }

        impl BrokerObject {
            /// The phase of a pass in which the object is declared or, in the opposite order, deleted.
            pub(crate) fn phase(&self, deleting: bool) -> u8 {
                match self { $(Self::$Kind(_) => phase($Kind::RANK, deleting)),+ }
            }

            /// See [`Kind::check`].
            pub(crate) fn check(&self) -> Result<(), FieldError> {
                match self { $(Self::$Kind(object) => $Kind::check(object)),+ }
            }

            /// See [`Kind::identity`].
            pub(crate) fn identity(&self) -> Identity {
                match self { $(Self::$Kind(object) => $Kind::identity(object)),+ }
            }

            /// See [`Kind::describe`].
            pub(crate) fn describe(&self) -> String {
                match self { $(Self::$Kind(object) => $Kind::describe(object)),+ }
            }

            fn lists(&self) -> Lists {
                match self { $(Self::$Kind(_) => $Kind::lists()),+ }
            }

            /// See [`Kind::missing_requirements`].
            pub(crate) fn missing_requirements(&self, inventory: &Inventory) -> Option<String> {
                match self { $(Self::$Kind(object) => $Kind::missing_requirements(object, inventory)),+ }
            }

            /// Compares the object with the one that is on the broker.
            pub(crate) fn compare(&self, inventory: &Inventory) -> Comparison {
                match self {
                    $(Self::$Kind(object) => {
                        $Kind::compare(object, inventory.$list.get(&$Kind::identity(object)), inventory)
                    }),+
                }
            }

            /// See [`Kind::declare`].
            pub(crate) async fn declare(&self, client: &Client) -> Result<Made, Error> {
                match self { $(Self::$Kind(object) => $Kind::declare(object, client).await),+ }
            }

            /// See [`Kind::exists`].
            pub(crate) async fn exists(&self, client: &Client) -> Result<bool, Error> {
                let answer = match self { $(Self::$Kind(object) => $Kind::exists(object, client).await),+ };
                match answer {
                    // An answer without a body describes no object.
                    Err(Error::NotFound(_) | Error::Unexpected { .. }) => Ok(false),
                    answer => answer,
                }
            }

            /// See [`Kind::delete`].
            pub(crate) async fn delete(
                &self,
                client: &Client,
                inventory: &Inventory,
                only: DeleteOnly,
            ) -> Result<(), Error> {
                match self {
                    $(Self::$Kind(object) => {
                        $Kind::delete(object, inventory.$list.get(&$Kind::identity(object)), client, only).await
                    }),+
                }
            }

            /// See [`Kind::is_predeclared`].
            pub(crate) fn is_predeclared(&self) -> bool {
                match self { $(Self::$Kind(object) => $Kind::is_predeclared(object)),+ }
            }

            /// See [`Kind::empty_numbers`].
            pub(crate) fn empty_numbers(&self) -> Option<Numbers> {
                match self { $(Self::$Kind(_) => $Kind::empty_numbers()),+ }
            }

            /// See [`Kind::declared_arguments`].
            #[cfg(feature = "kubernetes")]
            pub(crate) fn declared_arguments(&self) -> Option<SpecArguments> {
                match self { $(Self::$Kind(object) => $Kind::declared_arguments(object)),+ }
            }

            /// Returns the API resource of the kind that stands for such an object.
            #[cfg(feature = "kubernetes")]
            pub(crate) fn api_resource(&self) -> ApiResource {
                match self { $(Self::$Kind(_) => $Kind::api_resource()),+ }
            }
        }
    };
}
