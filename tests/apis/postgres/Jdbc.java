import java.math.BigDecimal;
import java.sql.*;
import java.time.*;
import java.util.*;

/** Checks of one JDBC driver; prints `ok NAME` or `failed NAME: why` for each. */
public class Jdbc {
    interface Check { void run(Connection c) throws Exception; }

    static String url;
    static Properties login = new Properties();

    static void check(String name, Check check) {
        try (Connection c = DriverManager.getConnection(url, login)) {
            check.run(c);
            System.out.println("ok " + name);
        } catch (Throwable error) {
            System.out.println("failed " + name + ": " + error);
        }
    }

    static void same(Object wanted, Object found) {
        if (!Objects.equals(wanted, found)) throw new AssertionError("wanted " + wanted + ", found " + found);
    }

    static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> found = new ArrayList<>();
        while (rows.next()) found.add(rows.getString(name));
        rows.close();
        return found;
    }

    public static void main(String[] args) throws Exception {
        url = args[0];
        login.setProperty("user", "dev");
        login.setProperty("password", args[1]);

        check("products", c -> {
            DatabaseMetaData m = c.getMetaData();
            same("PostgreSQL", m.getDatabaseProductName());
            same(15, m.getDatabaseMajorVersion());
            same(true, c.isValid(5));
            same("shop", c.getCatalog());
            same("gold", c.getSchema());
            m.getSQLKeywords();
            m.getNumericFunctions();
            same(63, m.getMaxColumnNameLength());
        });
        check("schemas", c -> same(List.of("bronze", "gold", "information_schema", "pg_catalog", "silver"),
            sorted(column(c.getMetaData().getSchemas(), "TABLE_SCHEM"))));
        check("catalogs", c -> same(List.of("shop"), column(c.getMetaData().getCatalogs(), "TABLE_CAT")));
        check("tables", c -> {
            same(List.of("kinds", "orders"), column(c.getMetaData().getTables(null, "gold", "%", new String[] {"TABLE"}), "TABLE_NAME"));
            same(List.of("orders"), column(c.getMetaData().getTables("shop", null, "ord%", null), "TABLE_NAME"));
            c.getMetaData().getTableTypes().close();
        });
        check("columns", c -> {
            ResultSet rows = c.getMetaData().getColumns(null, "gold", "orders", "%");
            List<String> found = new ArrayList<>();
            while (rows.next()) found.add(rows.getString("COLUMN_NAME") + " " + rows.getString("TYPE_NAME") + " "
                + rows.getInt("DATA_TYPE") + " " + rows.getInt("COLUMN_SIZE") + " " + rows.getInt("DECIMAL_DIGITS"));
            same("id int8 -5 19 0", found.get(0));
            same("amount numeric 2 12 2", found.get(3));
            same("ordered_at timestamptz 93 35 6", found.get(6));
            same(9, found.size());
        });
        check("types", c -> {
            List<String> names = column(c.getMetaData().getTypeInfo(), "TYPE_NAME");
            if (!names.containsAll(List.of("int8", "numeric", "timestamptz", "text"))) throw new AssertionError(names);
        });
        check("keys and others", c -> {
            DatabaseMetaData m = c.getMetaData();
            same(List.of(), column(m.getPrimaryKeys(null, "gold", "orders"), "COLUMN_NAME"));
            same(List.of(), column(m.getImportedKeys(null, "gold", "orders"), "FKCOLUMN_NAME"));
            same(List.of(), column(m.getExportedKeys(null, "gold", "orders"), "FKCOLUMN_NAME"));
            same(List.of(), column(m.getCrossReference(null, "gold", "orders", null, "gold", "kinds"), "FKCOLUMN_NAME"));
            same(List.of(), column(m.getIndexInfo(null, "gold", "orders", false, true), "INDEX_NAME"));
            same(List.of(), column(m.getBestRowIdentifier(null, "gold", "orders", 0, true), "COLUMN_NAME"));
            m.getVersionColumns(null, "gold", "orders").close();
            m.getProcedures(null, null, "%").close();
            m.getFunctions(null, "gold", "%").close();
            m.getProcedureColumns(null, "gold", "%", "%").close();
            m.getFunctionColumns(null, "gold", "%", "%").close();
            m.getUDTs(null, "gold", "%", null).close();
            m.getTablePrivileges(null, "gold", "%").close();
            m.getColumnPrivileges(null, "gold", "orders", "%").close();
            m.getClientInfoProperties().close();
        });
        check("every type", c -> {
            ResultSet rows = c.createStatement().executeQuery("select * from gold.kinds order by n");
            rows.next();
            same(true, rows.getBoolean("flag"));
            same((short) 1, rows.getShort("tiny"));
            same(4L, rows.getLong("big"));
            same(1.5f, rows.getFloat("single"));
            same(2.25, rows.getDouble("wide"));
            same(new BigDecimal("12345.6789000000"), rows.getBigDecimal("money"));
            same(2, rows.getBytes("bytes").length);
            same(LocalDate.of(2024, 5, 1), rows.getObject("day", LocalDate.class));
            same(Instant.parse("2024-05-01T12:30:15.250Z"), rows.getObject("moment", OffsetDateTime.class).toInstant());
            same(Instant.parse("2024-05-01T12:30:15.250Z"), rows.getTimestamp("moment").toInstant());
            same(List.of(1L, 3L), List.of(((Object[]) rows.getArray("numbers").getArray())[0], ((Object[]) rows.getArray("numbers").getArray())[2]));
            same("{\"k\": \"v\"}", rows.getString("tags"));
            rows.next();
            rows.getLong("big");
            same(true, rows.wasNull());
            rows.next();
            same(Long.MAX_VALUE, rows.getLong("big"));
        });
        check("prepared, again and again", c -> {
            try (PreparedStatement s = c.prepareStatement("select id, amount, customer, ordered_at, paid from gold.orders where id = ?")) {
                for (int n = 1; n <= 9; n++) {
                    s.setInt(1, n);
                    ResultSet rows = s.executeQuery();
                    rows.next();
                    same((long) n, rows.getLong(1));
                    same(0, rows.getBigDecimal(2).compareTo(BigDecimal.valueOf(n).divide(BigDecimal.valueOf(4))));
                    same("customer " + n, rows.getString(3));
                    same(n % 3 == 0, rows.getBoolean(5));
                }
            }
        });
        check("every kind of parameter", c -> {
            String text = "select count(*) from gold.orders where customer = ? and amount > ? and ordered_at > ? and ordered_on >= ?"
                + " and weight < ? and paid = ? and id > ? and items <= ?";
            try (PreparedStatement s = c.prepareStatement(text)) {
                for (int n = 0; n < 7; n++) {
                    s.setString(1, "customer 9");
                    s.setBigDecimal(2, new BigDecimal("1.5"));
                    s.setTimestamp(3, Timestamp.from(Instant.parse("2024-05-01T00:00:00Z")));
                    s.setDate(4, java.sql.Date.valueOf("2024-05-01"));
                    s.setDouble(5, 1e9);
                    s.setBoolean(6, true);
                    s.setLong(7, 0);
                    s.setInt(8, 6);
                    ResultSet rows = s.executeQuery();
                    rows.next();
                    same(8L, rows.getLong(1));
                }
            }
        });
        check("null and arrays as parameters", c -> {
            try (PreparedStatement s = c.prepareStatement("select count(*) from gold.orders where id = any(?) and (customer = ? or ? is null)")) {
                s.setArray(1, c.createArrayOf("bigint", new Long[] {1L, 2L, 3L}));
                s.setNull(2, Types.VARCHAR);
                s.setNull(3, Types.VARCHAR);
                ResultSet rows = s.executeQuery();
                rows.next();
                same(3L, rows.getLong(1));
            }
        });
        check("what a statement will give", c -> {
            try (PreparedStatement s = c.prepareStatement("select id, amount from gold.orders where customer = ?")) {
                same("int8", s.getMetaData().getColumnTypeName(1));
                same(2, s.getMetaData().getScale(2));
                same(Types.VARCHAR, s.getParameterMetaData().getParameterType(1));
            }
        });
        check("portions of rows", c -> {
            c.setAutoCommit(false);
            try (Statement s = c.createStatement()) {
                s.setFetchSize(100);
                ResultSet rows = s.executeQuery("select id from gold.orders order by id");
                long sum = 0, count = 0;
                while (rows.next()) { sum += rows.getLong(1); count++; }
                same(2500L, count);
                same(2500L * 2501 / 2, sum);
            }
            c.commit();
        });
        check("a bound on rows", c -> {
            try (Statement s = c.createStatement()) {
                s.setMaxRows(7);
                ResultSet rows = s.executeQuery("select id from gold.orders");
                int count = 0;
                while (rows.next()) count++;
                same(7, count);
            }
        });
        check("transactions", c -> {
            c.setAutoCommit(false);
            c.setReadOnly(true);
            try (Statement s = c.createStatement()) {
                try {
                    s.executeQuery("select nothing from gold.orders");
                    throw new AssertionError("no error");
                } catch (SQLException error) {
                    same("42703", error.getSQLState());
                }
                try {
                    s.executeQuery("select 1");
                    throw new AssertionError("no error");
                } catch (SQLException error) {
                    same("25P02", error.getSQLState());
                }
                c.rollback();
                Savepoint point = c.setSavepoint("here");
                s.executeQuery("select 1").close();
                c.rollback(point);
                c.commit();
            }
        });
        check("nothing can be changed", c -> {
            try (Statement s = c.createStatement()) {
                s.executeUpdate("insert into gold.orders (id) values (1)");
                throw new AssertionError("no error");
            } catch (SQLException error) {
                same("25006", error.getSQLState());
            }
        });
        check("cancel", c -> {
            Statement s = c.createStatement();
            new Thread(() -> {
                try {
                    Thread.sleep(1500);
                    s.cancel();
                } catch (Exception error) {
                    System.out.println(error);
                }
            }).start();
            try {
                s.executeQuery("select count(*) from range(1000000) a, range(1000000) b, range(1000) c");
                throw new AssertionError("no error");
            } catch (SQLException error) {
                same("57014", error.getSQLState());
            }
            s.executeQuery("select 1").close();
        });
        check("a bound on time", c -> {
            try (Statement s = c.createStatement()) {
                s.setQueryTimeout(1);
                s.executeQuery("select count(*) from range(1000000) a, range(1000000) b, range(1000) c");
                throw new AssertionError("no error");
            } catch (SQLException error) {
                same("57014", error.getSQLState());
            }
        });
        check("what BI tools ask", c -> {
            try (Statement s = c.createStatement()) {
                ResultSet rows = s.executeQuery("SELECT \"t\".\"tenant\" AS \"c1\", SUM(\"t\".\"amount\") AS \"c2\", COUNT(DISTINCT \"t\".\"customer\") AS \"c3\","
                    + " DATE_TRUNC('day', \"t\".\"ordered_at\") AS \"c4\", TO_CHAR(\"t\".\"ordered_at\", 'YYYY-MM') AS \"c5\","
                    + " CAST(EXTRACT(YEAR FROM \"t\".\"ordered_on\") AS INTEGER) AS \"c6\", 7 / 2 AS \"c7\""
                    + " FROM \"gold\".\"orders\" \"t\" WHERE (\"t\".\"customer\" ~ '^customer' AND \"t\".\"customer\" ILIKE '%9%')"
                    + " GROUP BY 1, 4, 5, 6 HAVING COUNT(*) > 1 ORDER BY 1 DESC NULLS LAST, 4 LIMIT 10 OFFSET 0");
                rows.next();
                same("globex", rows.getString(1));
                same("2024-05", rows.getString(5));
                same(2024, rows.getInt(6));
                same(3, rows.getInt(7));
            }
        });
        check("several statements and batches of settings", c -> {
            try (Statement s = c.createStatement()) {
                same(false, s.execute("set application_name = 'x'; set statement_timeout = 0"));
                same(true, s.execute("select 1; select 2"));
                same(true, s.getMoreResults());
                ResultSet rows = s.getResultSet();
                rows.next();
                same(2, rows.getInt(1));
            }
        });
    }

    static List<String> sorted(List<String> found) {
        Collections.sort(found);
        return found;
    }
}
