#[automatically_derived]
impl ::mixpanel_groups::MixpanelGroup for Wide {
    const GROUP_KEY: &'static ::mixpanel_groups::__private::str = "company";
    const GROUP_HEAD: &'static ::mixpanel_groups::__private::str = "\"$group_key\":\"company\",\"$group_id\":";
    const PROPERTIES: &'static [::mixpanel_groups::Property] = {
        type __Operation = ::mixpanel_groups::Operation;
        &::mixpanel_groups::Property::all([
            ("name", "name", __Operation::Set, "", ",\"name\":", false),
            ("legalName", "legal_name", __Operation::Set, "", ",\"legalName\":", false),
            ("domain", "domain", __Operation::Set, "", ",\"domain\":", false),
            ("plan", "plan", __Operation::Set, "", ",\"plan\":", false),
            (
                "planInterval",
                "plan_interval",
                __Operation::Set,
                "",
                ",\"planInterval\":",
                false,
            ),
            ("seats", "seats", __Operation::Set, "", ",\"seats\":", false),
            ("seatsUsed", "seats_used", __Operation::Set, "", ",\"seatsUsed\":", false),
            ("trialEnds", "trial_ends", __Operation::Set, "", ",\"trialEnds\":", true),
            ("coupon", "coupon", __Operation::Set, "", ",\"coupon\":", true),
            ("revenue", "revenue", __Operation::Set, "", ",\"revenue\":", false),
            ("employees", "employees", __Operation::Set, "", ",\"employees\":", false),
            ("industry", "industry", __Operation::Set, "", ",\"industry\":", false),
            ("country", "country", __Operation::Set, "", ",\"country\":", false),
            ("city", "city", __Operation::Set, "", ",\"city\":", false),
            ("timezone", "timezone", __Operation::Set, "", ",\"timezone\":", false),
            ("language", "language", __Operation::Set, "", ",\"language\":", false),
            ("created", "created", __Operation::SetOnce, "", ",\"created\":", false),
            (
                "signupSource",
                "signup_source",
                __Operation::SetOnce,
                "",
                ",\"signupSource\":",
                false,
            ),
            (
                "firstPlan",
                "first_plan",
                __Operation::SetOnce,
                "",
                ",\"firstPlan\":",
                false,
            ),
            (
                "foundingYear",
                "founding_year",
                __Operation::SetOnce,
                "",
                ",\"foundingYear\":",
                false,
            ),
            (
                "integrations",
                "integrations",
                __Operation::Union,
                "",
                ",\"integrations\":",
                false,
            ),
            ("features", "features", __Operation::Union, "", ",\"features\":", false),
            ("admins", "admins", __Operation::Union, "", ",\"admins\":", false),
            ("tags", "tags", __Operation::Union, "", ",\"tags\":", false),
            ("lastSeen", "last_seen", __Operation::Set, "", ",\"lastSeen\":", false),
            ("health", "health", __Operation::Set, "", ",\"health\":", false),
            (
                "isCustomer",
                "is_customer",
                __Operation::Set,
                "",
                ",\"isCustomer\":",
                false,
            ),
            (
                "accountManager",
                "account_manager",
                __Operation::Set,
                "",
                ",\"accountManager\":",
                false,
            ),
            ("notes", "notes", __Operation::Set, "", ",\"notes\":", false),
        ])
    };
    fn group(&self) -> ::mixpanel_groups::Group<'_> {
        ::mixpanel_groups::Group::new(
            <Self as ::mixpanel_groups::MixpanelGroup>::GROUP_KEY,
            ::mixpanel_groups::GroupId::group_id(&self.id),
        )
    }
    fn visit_properties<__V: ::mixpanel_groups::__private::Visitor>(
        &self,
        __old: &Self,
        __operation: ::mixpanel_groups::Operation,
        __visitor: &mut __V,
    ) -> ::mixpanel_groups::__private::Result<
        (),
        ::mixpanel_groups::__private::EncodeError,
    > {
        type __Operation = ::mixpanel_groups::Operation;
        type __Walk<'__a, __V> = ::mixpanel_groups::__private::Walk<'__a, __V>;
        type __Values<'__a, __T> = ::mixpanel_groups::__private::Values<'__a, __T>;
        let __properties = <Self as ::mixpanel_groups::MixpanelGroup>::PROPERTIES;
        let __walk = &mut __Walk::new(__visitor, __properties);
        let __is_complete = match __operation {
            __Operation::Set => {
                __Values::new(&self.name, &__old.name).__property(__walk, 0)
                    && __Values::new(&self.legal_name, &__old.legal_name)
                        .__property(__walk, 1)
                    && __Values::new(&self.domain, &__old.domain).__property(__walk, 2)
                    && __Values::new(&self.plan, &__old.plan).__property(__walk, 3)
                    && __Values::new(&self.plan_interval, &__old.plan_interval)
                        .__property(__walk, 4)
                    && __Values::new(&self.seats, &__old.seats).__property(__walk, 5)
                    && __Values::new(&self.seats_used, &__old.seats_used)
                        .__property(__walk, 6)
                    && __Values::new(&self.trial_ends, &__old.trial_ends)
                        .__property(__walk, 7)
                    && __Values::new(&self.coupon, &__old.coupon).__property(__walk, 8)
                    && __Values::new(&self.revenue, &__old.revenue).__property(__walk, 9)
                    && __Values::new(&self.employees, &__old.employees)
                        .__property(__walk, 10)
                    && __Values::new(&self.industry, &__old.industry)
                        .__property(__walk, 11)
                    && __Values::new(&self.country, &__old.country)
                        .__property(__walk, 12)
                    && __Values::new(&self.city, &__old.city).__property(__walk, 13)
                    && __Values::new(&self.timezone, &__old.timezone)
                        .__property(__walk, 14)
                    && __Values::new(&self.language, &__old.language)
                        .__property(__walk, 15)
                    && __Values::new(&self.last_seen, &__old.last_seen)
                        .__property(__walk, 24)
                    && __Values::new(&self.health, &__old.health).__property(__walk, 25)
                    && __Values::new(&self.is_customer, &__old.is_customer)
                        .__property(__walk, 26)
                    && __Values::new(&self.account_manager, &__old.account_manager)
                        .__property(__walk, 27)
                    && __Values::new(
                            &::mixpanel_groups::__private::unless(
                                String::is_empty(&self.notes),
                                &self.notes,
                            ),
                            &::mixpanel_groups::__private::unless(
                                String::is_empty(&__old.notes),
                                &__old.notes,
                            ),
                        )
                        .__property(__walk, 28)
            }
            __Operation::SetOnce => {
                __Values::new(&self.created, &__old.created).__property(__walk, 16)
                    && __Values::new(&self.signup_source, &__old.signup_source)
                        .__property(__walk, 17)
                    && __Values::new(&self.first_plan, &__old.first_plan)
                        .__property(__walk, 18)
                    && __Values::new(&self.founding_year, &__old.founding_year)
                        .__property(__walk, 19)
            }
            __Operation::Union => {
                __Values::new(&self.integrations, &__old.integrations).__list(__walk, 20)
                    && __Values::new(&self.features, &__old.features).__list(__walk, 21)
                    && __Values::new(&self.admins, &__old.admins).__list(__walk, 22)
                    && __Values::new(&self.tags, &__old.tags).__list(__walk, 23)
            }
            _ => true,
        };
        __walk.end(__is_complete)
    }
}
