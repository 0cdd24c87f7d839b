// What a classic board may say, in Grafana's own types. Enumerations stand as their values, since JSON has no others.
import type {
  AnnotationQuery,
  Dashboard,
  DataSourceRef,
  FieldConfig,
  Panel,
  RowPanel,
  VariableModel,
} from "@grafana/schema";
import type * as bargauge from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as timeline from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as history from "@grafana/schema/dist/esm/raw/composable/statushistory/panelcfg/x/StatusHistoryPanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

type Plain<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends Array<infer Item>
      ? Plain<Item>[]
      : T extends object
        ? { [Key in keyof T]: Plain<T[Key]> }
        : T;

// The schema leaves queries, options of panels and a few fields of annotations open; here they are closed.
interface PromQuery {
  refId: string;
  datasource: DataSourceRef;
  editorMode: "code";
  expr: string;
  legendFormat: string;
  range: boolean;
  instant: boolean;
  exemplar: boolean;
  format: "time_series" | "table" | "heatmap";
  interval: string;
}
interface JaegerSearch {
  refId: string;
  datasource: DataSourceRef;
  queryType: "search";
  service: string;
  operation: string;
  tags: string;
  limit: number;
}
interface JaegerTrace {
  refId: string;
  datasource: DataSourceRef;
  query: string;
}
interface Link {
  title: string;
  url: string;
  targetBlank: boolean;
}
type Typed<Kind extends string, Options, Custom> = Omit<Plain<Panel>, "type" | "targets" | "options" | "fieldConfig"> & {
  type: Kind;
  targets: (PromQuery | JaegerSearch | JaegerTrace)[];
  options: Partial<Plain<Options>>;
  fieldConfig: {
    defaults: Omit<Plain<FieldConfig>, "custom" | "links"> & { links: Link[]; custom: Partial<Plain<Custom>> };
    overrides: { matcher: { id: "byName"; options: string }; properties: { id: "unit"; value: string }[] }[];
  };
};
type Any =
  | Typed<"bargauge", bargauge.Options, {}>
  | Typed<"heatmap", heatmap.Options, heatmap.FieldConfig>
  | Typed<"stat", stat.Options, {}>
  | Typed<"state-timeline", timeline.Options, timeline.FieldConfig>
  | Typed<"status-history", history.Options, history.FieldConfig>
  | Typed<"table", table.Options, table.FieldConfig>
  | Typed<"timeseries", timeseries.Options, timeseries.FieldConfig>
  | Typed<"traces", {}, {}>
  | (Plain<Omit<RowPanel, "panels">> & { panels: Any[] });

// As the data source for Prometheus reads them.
type StageChanges = Omit<Plain<AnnotationQuery>, "target"> & {
  target: { refId: string; expr: string; interval: string };
  titleFormat: string;
  textFormat: string;
  tagKeys: string;
  useValueForTime: boolean;
};
type Variable = Plain<Omit<VariableModel, "query">> & {
  query: string | { query: string; refId: string; qryType: number };
  definition?: string;
};

export type Board = Omit<Plain<Dashboard>, "panels" | "annotations" | "templating"> & {
  panels: Any[];
  annotations: { list: StageChanges[] };
  templating: { list: Variable[] };
};
