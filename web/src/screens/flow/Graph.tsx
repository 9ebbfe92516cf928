/** The graph itself: nodes that stay where they are, edges as wide as what flows through them. */

import { BaseEdge, type Edge, type EdgeProps, Handle, type Node, type NodeProps, Position, ReactFlow, ReactFlowProvider, useReactFlow, useStore } from "@xyflow/react";
import "@xyflow/react/dist/base.css";
import { createContext, memo, useCallback, useContext, useEffect, useMemo, useRef } from "react";

import type { Flow, FlowEdge, FlowNode } from "../../api/types";
import { count, rate } from "../../format";
import { freshness, said } from "../../live/freshness";
import { useLive } from "../../live/stream";
import { Icon } from "../../parts/Icon";
import { Badge, Button, State } from "../../parts/parts";
import { connected, layout, NODE, path, type Place, shapeOf, thickness } from "./layout";

type TableNode = Node<{ node: FlowNode }, "flow">;
type RateEdge = Edge<{ edge: FlowEdge; bends: Place[] }, "rate">;

/** Ids that are lit; all when null. */
const Lit = createContext<ReadonlySet<string> | null>(null);

function useNow(node: FlowNode): { state: string; rate: number | null; fresh: string; aside: number } {
  const { overview } = useLive();
  const table = overview?.tables.find((one) => one.table === node.table);
  if (table === undefined || overview === null) return { state: node.state, rate: node.rate_per_s, fresh: "", aside: node.quarantine_open ?? 0 };
  const age = freshness(table, overview);
  return { state: table.state, rate: table.rate_per_s, fresh: age === null ? "" : said(age, overview), aside: node.kind === "table" ? (table.quarantine_open ?? 0) : 0 };
}

const FlowNodeView = memo(function FlowNodeView({ data, selected }: NodeProps<TableNode>) {
  const { node } = data;
  const now = useNow(node);
  const lit = useContext(Lit);
  const name = node.kind === "table" ? node.label.slice(node.label.indexOf(".") + 1) : node.label;
  return (
    <div className={`node node-${node.kind} ${selected ? "node-selected" : ""} ${lit && !lit.has(node.id) ? "dim" : ""}`} data-layer={node.layer ?? undefined} style={NODE}>
      <Handle type="target" position={Position.Left} isConnectable={false} />
      <div className="node-name">
        {node.kind === "table" ? <State state={now.state} quiet /> : <Icon name="source" size={13} />}
        <strong title={node.label}>{name}</strong>
        {now.aside > 0 && (
          <Badge tone="warn" title={`${count(now.aside)} rows in quarantine`}>
            {count(now.aside)}
          </Badge>
        )}
      </div>
      <div className="node-facts num">
        <span>{rate(now.rate)} rows/s</span>
        <span>{now.fresh}</span>
      </div>
      <Handle type="source" position={Position.Right} isConnectable={false} />
    </div>
  );
});

const RateEdgeView = memo(function RateEdgeView(props: EdgeProps<RateEdge>) {
  const edge = props.data?.edge;
  const lit = useContext(Lit);
  const live = useLive().overview?.tables.find((one) => one.table === (edge?.kind === "source" ? edge.to : edge?.from))?.rate_per_s;
  const flowing = edge?.kind === "lookup" || edge?.kind === "query" ? null : (live ?? edge?.rate_per_s ?? null);
  const line = path([{ x: props.sourceX, y: props.sourceY }, ...(props.data?.bends ?? []), { x: props.targetX, y: props.targetY }]);
  const dim = lit !== null && edge !== undefined && !(lit.has(edge.from) && lit.has(edge.to));
  return <BaseEdge path={line} className={`edge edge-${edge?.kind ?? "stream"} ${flowing ? "edge-flows" : ""} ${dim ? "dim" : ""}`} style={{ strokeWidth: thickness(flowing) }} interactionWidth={0} />;
});

const NODES = { flow: FlowNodeView };
const EDGES = { rate: RateEdgeView };

interface Props {
  flow: Flow;
  selected: string | undefined;
  select: (id: string | undefined) => void;
  /** Nodes to light, when it is not what the selected one is connected to. */
  lit?: ReadonlySet<string> | null;
}

export function Graph(props: Props) {
  return (
    <ReactFlowProvider>
      <Drawn {...props} />
    </ReactFlowProvider>
  );
}

function Drawn({ flow, selected, select, lit: given }: Props) {
  const shape = shapeOf(flow);
  const { places, bends } = useMemo(() => layout(shape), [shape]);
  const lit = useMemo(() => (selected === undefined ? null : connected(selected, flow)), [selected, shape]);
  const nodes = useMemo<TableNode[]>(
    () =>
      flow.nodes.map((node) => ({
        id: node.id,
        type: "flow",
        position: places.get(node.id) ?? { x: 0, y: 0 },
        data: { node },
        selected: node.id === selected,
        width: NODE.width,
        height: NODE.height,
        ariaLabel: `${node.kind} ${node.label}, ${node.state}`,
      })),
    [flow, places, selected],
  );
  const edges = useMemo<RateEdge[]>(
    () => flow.edges.map((edge) => ({ id: `${edge.from}→${edge.to}:${edge.kind}`, type: "rate", source: edge.from, target: edge.to, data: { edge, bends: bends.get(`${edge.from}→${edge.to}`) ?? [] }, focusable: false })),
    [flow, bends],
  );
  return (
    <Lit.Provider value={given ?? lit}>
      <ReactFlow
        nodes={nodes}
        edges={edges}
        nodeTypes={NODES}
        edgeTypes={EDGES}
        nodesDraggable={false}
        nodesConnectable={false}
        edgesFocusable={false}
        elevateEdgesOnSelect={false}
        onNodeClick={(_, node) => select(node.id === selected ? undefined : node.id)}
        onNodesChange={(changes) => {
          // Enter or space on a focused node.
          for (const change of changes) if (change.type === "select" && change.selected && change.id !== selected) select(change.id);
        }}
        onPaneClick={() => select(undefined)}
        minZoom={0.15}
        maxZoom={1.5}
        fitView
        fitViewOptions={FIT}
        proOptions={{ hideAttribution: true }}
        aria-label="The flow of rows from sources to gold"
      >
        <Tools shape={shape} selected={selected === undefined ? undefined : places.get(selected)} />
      </ReactFlow>
    </Lit.Provider>
  );
}

const FIT = { padding: 0.06, maxZoom: 1.1 };

/** Room that the panel beside the selected node takes. */
const SIDE = 330;
const BESIDE = { padding: { top: 0.06, left: 0.06, bottom: 0.06, right: `${SIDE}px` as const }, maxZoom: 1.1 };

/** Fits the graph to its box when either changes; moves it only when the panel would cover the selected node. */
function Tools({ shape, selected }: { shape: string; selected: Place | undefined }) {
  const { fitView, zoomIn, zoomOut, getViewport, setViewport } = useReactFlow();
  const width = useStore((store) => store.width);
  const fitted = useRef(false);
  const uncover = useCallback(() => {
    const first = !fitted.current;
    fitted.current = width > 0;
    if (first || selected === undefined || width === 0) return;
    const { x, y, zoom } = getViewport();
    const beyond = (selected.x + NODE.width) * zoom + x - (width - SIDE);
    if (beyond > 0) void setViewport({ x: x - beyond, y, zoom }, { duration: 200 });
  }, [selected, width, getViewport, setViewport]);
  // When the page opens with a node, the graph is fitted beside the panel; a click later moves it only as far as needed.
  useEffect(() => void fitView(selected === undefined ? FIT : BESIDE), [shape, width, fitView]);
  useEffect(uncover, [uncover]);
  return (
    <div className="flow-tools">
      <Button icon="plus" aria-label="Larger" title="Larger" onClick={() => void zoomIn()} />
      <Button icon="minus" aria-label="Smaller" title="Smaller" onClick={() => void zoomOut()} />
      <Button icon="fit" aria-label="Show all of it" title="Show all of it" onClick={() => void fitView(FIT)} />
    </div>
  );
}
