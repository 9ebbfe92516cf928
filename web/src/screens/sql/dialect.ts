/** The words of the SQL that queries are written in (DuckDB's), for colours and completion. */

import { SQLDialect } from "@codemirror/lang-sql";

const KEYWORDS =
  "all and any as asc asof at between by case cast cross current_date current_timestamp desc describe distinct else end escape except exclude exists explain false fetch filter first following for from full group grouping having ilike in inner intersect interval into is join last lateral left like limit natural not null nulls offset on or order outer over partition pivot positional preceding qualify range replace right rollup row rows sample select semi set sets show similar summarize table then to true try_cast unbounded union unnest unpivot using values version timestamp when where window with within";
const FUNCTIONS =
  "abs approx_count_distinct approx_quantile arg_max arg_min array_agg avg bool_and bool_or ceil coalesce concat contains corr count count_if date_diff date_part date_trunc day dense_rank epoch_us exp first_value floor greatest hour ifnull lag last_value lead least len length list ln lower lpad max md5 median min minute mode month monthname now ntile nullif percent_rank quantile_cont rank regexp_extract regexp_matches regexp_replace round row_number sign split_part sqrt stddev strftime strip_accents strptime substring sum time_bucket trim upper var_samp week year";
const TYPES = "array bigint binary blob boolean char date decimal double float hugeint int integer json long numeric real short smallint string struct text time timestamp tinyint uuid varchar";

export const dialect = SQLDialect.define({
  keywords: KEYWORDS,
  builtin: FUNCTIONS,
  types: TYPES,
  doubleDollarQuotedStrings: true,
  operatorChars: "+-*/<>=~!@#%^&|?",
  caseInsensitiveIdentifiers: true,
});
