/** The rules of a table: what each asks for, how many rows broke it, and when. */

import type { Quality } from "../../api/types";
import { Spark } from "../../charts/Spark";
import { count } from "../../format";
import { Badge, Empty } from "../../parts/parts";
import "./quality.css";

const SAID: Record<string, string> = { warn: "warns", drop: "drops the row", quarantine: "sets it aside", fail: "stops the table" };

export function Rules({ quality }: { quality: Quality }) {
  if (quality.rules.length === 0) {
    return (
      <Empty title="No rules yet" command={"expect:\n  positive: {that: amount >= 0, else: quarantine}"}>
        A rule says what every row must be, and what becomes of one that is not. Declare it in the file of the table:
      </Empty>
    );
  }
  return (
    <div className="scroll-x">
      <table className="list rules">
        <thead>
          <tr>
            <th>rule</th>
            <th>every row</th>
            <th>else</th>
            <th className="right">broken</th>
            <th className="right">of rows</th>
            <th>over time</th>
          </tr>
        </thead>
        <tbody>
          {quality.rules.map((rule) => {
            const all = rule.failed === null || rule.passed === null ? null : rule.failed + rule.passed;
            const broken = rule.failed ?? 0;
            return (
              <tr key={rule.name}>
                <td>
                  <b className="rule-name">{rule.name}</b>
                </td>
                <td className="wide mono rule-that">{rule.that ?? <span className="quiet">no longer declared</span>}</td>
                <td>
                  <span className="quiet">{SAID[rule.otherwise ?? ""] ?? rule.otherwise}</span>
                </td>
                <td className="right">{broken > 0 ? <Badge tone={rule.otherwise === "warn" ? "warn" : "bad"}>{count(broken)}</Badge> : <span className="quiet">{count(rule.failed)}</span>}</td>
                <td className="right quiet">{count(all)}</td>
                <td>
                  <Spark values={quality.series.rules[rule.name] ?? []} color={broken > 0 ? "var(--bad)" : "var(--line-strong)"} width={180} height={24} label={`rows that broke ${rule.name} over time`} />
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
