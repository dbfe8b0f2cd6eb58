//! Data in the shape of a computer seller's org: users with managers, accounts with parents, opportunities.

use tributary::model::record_id::RecordId;

/// One stamp for all rows: a paged read must lose none of them and loop on none.
const STAMP: &str = "2017-12-31T23:59:59.000+0000";

/// The id of the `number`th record of a key prefix.
pub fn id(prefix: &str, number: usize) -> String {
    RecordId::salesforce(&format!("{prefix}{number:012}"))
        .unwrap()
        .to_string()
}

/// Every table of an org of that many records.
pub fn tables(users: usize, accounts: usize, opportunities: usize) -> Vec<(&'static str, String)> {
    vec![
        ("User", user_table(users)),
        ("Account", account_table(accounts)),
        (
            "Opportunity",
            opportunity_table(opportunities, accounts, users),
        ),
    ]
}

fn user_table(users: usize) -> String {
    let mut table = String::from(
        "Id,FirstName,LastName,Email,Username,Title,TimeZoneSidKey,LocaleSidKey,Division,ManagerId,UserType,IsActive,CreatedDate,LastModifiedDate,SystemModstamp\n",
    );
    for number in 0..users {
        // Managers come last, so that most of them are not there yet when their people are.
        let manager = if number + 6 < users {
            id("005", users - 1 - number % 6)
        } else {
            String::new()
        };
        let (active, division) = (number % 9 != 0, ["East", "Central", "West"][number % 3]);
        table += &format!(
            "{},First{number},Last{number},u{number}@seller.example,u{number}@seller.example,Agent,America/New_York,en_US,{division},{manager},Standard,{active},{STAMP},{STAMP},{STAMP}\n",
            id("005", number),
        );
    }
    table
}

fn account_table(accounts: usize) -> String {
    let mut table = String::from(
        "Id,Name,Industry,NumberOfEmployees,AnnualRevenue,YearStarted,BillingCountry,ParentId,CreatedDate,LastModifiedDate,SystemModstamp,IsDeleted\n",
    );
    for number in 0..accounts {
        let parent = if number % 5 == 1 {
            id("001", accounts - 1 - number / 5)
        } else {
            String::new()
        };
        let industry = [
            "retail",
            "medical",
            "\"soft, ware\"",
            "\"a \"\"quoted\"\" one\"",
            "",
        ][number % 5];
        table += &format!(
            "{},Company {number},{industry},{},{},{},United States,{parent},{STAMP},{STAMP},{STAMP},false\n",
            id("001", number),
            number * 31,
            number as u64 * 1_000_040_000,
            1950 + number % 60,
        );
    }
    table
}

fn opportunity_table(opportunities: usize, accounts: usize, users: usize) -> String {
    let mut table = String::from(
        "Id,Name,StageName,Amount,CloseDate,AccountId,OwnerId,Type,CreatedDate,LastModifiedDate,SystemModstamp,IsDeleted\n",
    );
    for number in 0..opportunities {
        // Some have no account, some no amount and no date.
        let account = if number % 6 == 5 {
            String::new()
        } else {
            id("001", number % accounts)
        };
        let (amount, closes) = if number % 4 == 3 {
            (String::new(), String::new())
        } else {
            (
                format!("{}", 55 + number % 30_000),
                format!("2017-{:02}-{:02}", 1 + number % 12, 1 + number % 28),
            )
        };
        let stage = ["Won", "Lost", "Engaging", "Prospecting"][number % 4];
        table += &format!(
            "{},Deal {number},{stage},{amount},{closes},{account},{},GTX Basic,{STAMP},{STAMP},{STAMP},false\n",
            id("006", number),
            id("005", number % users),
        );
    }
    table
}
