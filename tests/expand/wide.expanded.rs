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
        let __properties = <Self as ::mixpanel_groups::MixpanelGroup>::PROPERTIES;
        let __walk = &mut __Walk::new(__visitor, __properties);
        let __is_complete = match __operation {
            __Operation::Set => {
                __Walk::property(__walk, 0, &self.name, &__old.name)
                    && __Walk::property(__walk, 1, &self.legal_name, &__old.legal_name)
                    && __Walk::property(__walk, 2, &self.domain, &__old.domain)
                    && __Walk::property(__walk, 3, &self.plan, &__old.plan)
                    && __Walk::property(
                        __walk,
                        4,
                        &self.plan_interval,
                        &__old.plan_interval,
                    ) && __Walk::property(__walk, 5, &self.seats, &__old.seats)
                    && __Walk::property(__walk, 6, &self.seats_used, &__old.seats_used)
                    && __Walk::property(__walk, 7, &self.trial_ends, &__old.trial_ends)
                    && __Walk::property(__walk, 8, &self.coupon, &__old.coupon)
                    && __Walk::property(__walk, 9, &self.revenue, &__old.revenue)
                    && __Walk::property(__walk, 10, &self.employees, &__old.employees)
                    && __Walk::property(__walk, 11, &self.industry, &__old.industry)
                    && __Walk::property(__walk, 12, &self.country, &__old.country)
                    && __Walk::property(__walk, 13, &self.city, &__old.city)
                    && __Walk::property(__walk, 14, &self.timezone, &__old.timezone)
                    && __Walk::property(__walk, 15, &self.language, &__old.language)
                    && __Walk::property(__walk, 24, &self.last_seen, &__old.last_seen)
                    && __Walk::property(__walk, 25, &self.health, &__old.health)
                    && __Walk::property(
                        __walk,
                        26,
                        &self.is_customer,
                        &__old.is_customer,
                    )
                    && __Walk::property(
                        __walk,
                        27,
                        &self.account_manager,
                        &__old.account_manager,
                    )
                    && __Walk::property(
                        __walk,
                        28,
                        &::mixpanel_groups::__private::unless(
                            String::is_empty(&self.notes),
                            &self.notes,
                        ),
                        &::mixpanel_groups::__private::unless(
                            String::is_empty(&__old.notes),
                            &__old.notes,
                        ),
                    )
            }
            __Operation::SetOnce => {
                __Walk::property(__walk, 16, &self.created, &__old.created)
                    && __Walk::property(
                        __walk,
                        17,
                        &self.signup_source,
                        &__old.signup_source,
                    )
                    && __Walk::property(__walk, 18, &self.first_plan, &__old.first_plan)
                    && __Walk::property(
                        __walk,
                        19,
                        &self.founding_year,
                        &__old.founding_year,
                    )
            }
            __Operation::Union => {
                __Walk::list(__walk, 20, &self.integrations, &__old.integrations)
                    && __Walk::list(__walk, 21, &self.features, &__old.features)
                    && __Walk::list(__walk, 22, &self.admins, &__old.admins)
                    && __Walk::list(__walk, 23, &self.tags, &__old.tags)
            }
            _ => true,
        };
        __walk.end(__is_complete)
    }
}
