/* Draws a dashboard with Grafana's own components. `draw` is called with the dashboard's JSON, whose
 * panels have a Prometheus' answers; `problems` says what is wrong with the picture. */
import {
  applyFieldOverrides, cacheFieldDisplayNames, createTheme, DataFrame, dateTime, FieldType, getDisplayValueAlignmentFactors,
  getFieldDisplayValues, standardFieldConfigEditorRegistry, standardTransformers,
  standardTransformersRegistry, ThemeContext, toDataFrame, transformDataFrame,
} from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import {
  BarGauge, BigValue, BigValueJustifyMode, GlobalStyles, Icon, PanelChrome, TimeSeries, UPlotConfigBuilder,
  VizRepeater,
} from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import React from 'react';
import { flushSync } from 'react-dom';
import { createRoot } from 'react-dom/client';
import { firstValueFrom } from 'rxjs';

const WIDTH = 1440, MARGIN = 16, CELL = 30, GAP = 8, HEAD = 52;
const theme = createTheme({ colors: { mode: 'dark' } });
(window as any).__grafana_public_path__ = '/';

/* Grafana's defaults of a line. */
const LINE = {
  drawStyle: 'line', lineWidth: 1, fillOpacity: 0, showPoints: 'auto', pointSize: 5, spanNulls: false,
  lineInterpolation: 'linear', gradientMode: 'none', axisPlacement: 'auto', axisColorMode: 'text',
  scaleDistribution: { type: 'linear' }, stacking: { mode: 'none', group: 'A' }, thresholdsStyle: { mode: 'off' },
};
/* Options of fields that panels have; in Grafana each plugin registers its own. */
const PLAIN = ['unit', 'min', 'max', 'decimals', 'displayName', 'color', 'thresholds', 'mappings', 'noValue', 'links'];
const CUSTOM = [...Object.keys(LINE), 'lineStyle', 'axisSoftMax'];
const option = (name: string, isCustom: boolean): any => ({
  id: (isCustom ? 'custom.' : '') + name, path: name, name, isCustom, settings: {},
  editor: () => null, override: () => null, process: (value: any) => value, shouldApply: () => true,
});
standardFieldConfigEditorRegistry.setInit(
  () => [...PLAIN.map((name) => option(name, false)), ...CUSTOM.map((name) => option(name, true))],
);
standardTransformersRegistry.setInit(() => [
  standardTransformers.mergeTransformer, standardTransformers.organizeFieldsTransformer,
].map((transformation) => ({ id: transformation.id, transformation, name: transformation.name } as any)));

type Mark = { time: number; color: string };
type Shown = { panel: any; frames: DataFrame[]; marks: Mark[]; board: any; error?: string };

/* One frame for each series, as Grafana's data source for Prometheus makes them. */
function framesOf(panel: any, step: number): DataFrame[] {
  return panel.answers.flatMap((answer: any) => answer.series.map((one: any) => {
    const labels = panel.type === 'table' ? Object.entries(one.labels).map(([name, value]) => (
      { name, type: FieldType.string, values: [value], config: {} })) : [];
    const value = panel.type === 'table' ? `Value #${answer.refId}` : one.name || 'Value';
    return toDataFrame({ refId: answer.refId, name: one.name, fields: [
      { name: 'Time', type: FieldType.time, values: one.times, config: { interval: step } },
      ...labels,
      { name: value, type: FieldType.number, values: one.values, labels: panel.type === 'table' ? undefined : one.labels,
        config: { displayNameFromDS: panel.type === 'table' ? undefined : one.name || undefined } },
    ] });
  }));
}

async function prepared(panel: any, board: any): Promise<DataFrame[]> {
  const raw = framesOf(panel, board.step);
  const made = panel.transformations && raw.length
    ? await firstValueFrom(transformDataFrame(panel.transformations, raw)) : raw;
  const { defaults, overrides } = panel.fieldConfig;
  const custom = panel.type === 'timeseries' ? { ...LINE, ...defaults.custom } : defaults.custom;
  const found = applyFieldOverrides({
    data: made, fieldConfig: { defaults: { ...defaults, custom }, overrides: overrides ?? [] },
    replaceVariables: (text) => text, theme, timeZone: 'utc', fieldConfigRegistry: standardFieldConfigEditorRegistry,
  });
  cacheFieldDisplayNames(found);
  return found;
}

/* Dots drawn, by the title of their panel. */
const dots = new Map<string, number>();

/* Draws marks of annotations and dots of exemplars, which plugins of the server do in Grafana. */
function drawMarks(config: UPlotConfigBuilder, { marks, panel }: Shown): null {
  config.addHook('draw', (plot) => {
    const { left, top, width, height } = plot.bbox, context = plot.ctx, scale = devicePixelRatio;
    const [unit] = Object.keys(plot.scales).filter((name) => name !== 'x' && name !== 'y');
    context.save();
    context.beginPath();
    context.rect(left, top, width, height + 10 * scale);
    context.clip();
    for (const { time, color } of marks) {
      const x = plot.valToPos(time, 'x', true);
      context.strokeStyle = context.fillStyle = theme.visualization.getColorByName(color);
      context.setLineDash([5 * scale, 5 * scale]);
      context.beginPath();
      context.moveTo(x, top);
      context.lineTo(x, top + height);
      context.stroke();
      context.beginPath();
      context.moveTo(x, top + height);
      context.lineTo(x - 5 * scale, top + height + 7 * scale);
      context.lineTo(x + 5 * scale, top + height + 7 * scale);
      context.fill();
    }
    context.fillStyle = theme.visualization.getColorByName('blue');
    for (const [time, value] of panel.exemplars ?? []) {
      const x = plot.valToPos(time, 'x', true), y = plot.valToPos(value, unit, true), size = 3.5 * scale;
      if (!(y >= top && y <= top + height)) continue;
      dots.set(panel.title, (dots.get(panel.title) ?? 0) + 1);
      context.beginPath();
      context.moveTo(x, y - size);
      context.lineTo(x + size, y);
      context.lineTo(x, y + size);
      context.lineTo(x - size, y);
      context.fill();
    }
    context.restore();
  });
  return null;
}

function Graph({ width, height, ...shown }: Shown & { width: number; height: number }) {
  const { panel, frames, board } = shown;
  const time = { from: dateTime(board.start), to: dateTime(board.end) };
  return <TimeSeries frames={frames} width={width} height={height} timeZone="utc" legend={panel.options.legend}
    timeRange={{ ...time, raw: time }}>{(config) => drawMarks(config, shown)}</TimeSeries>;
}

/* Numbers and bars: the panels "stat" and "bargauge". */
function Numbers({ panel, frames, width, height }: Shown & { width: number; height: number }) {
  const isStat = panel.type === 'stat', options = panel.options;
  const values = () => getFieldDisplayValues({
    fieldConfig: panel.fieldConfig, reduceOptions: options.reduceOptions, replaceVariables: (text) => text, theme,
    data: frames, sparkline: isStat && options.graphMode !== 'none', timeZone: 'utc',
  });
  return <VizRepeater source={frames} getValues={values} width={width} height={height} renderCounter={0}
    getAlignmentFactors={getDisplayValueAlignmentFactors} itemSpacing={isStat ? 3 : 8} autoGrid={isStat}
    orientation={options.orientation ?? 'auto'} minVizHeight={16} minVizWidth={8} maxVizHeight={options.maxVizHeight}
    renderValue={({ value, width, height, count, alignmentFactors }: any) => isStat
      ? <BigValue theme={theme} value={value.display} width={width} height={height} count={count}
          sparkline={value.sparkline} colorMode={options.colorMode} graphMode={options.graphMode}
          justifyMode={BigValueJustifyMode.Auto} textMode={options.textMode} text={options.text} alignmentFactors={alignmentFactors} />
      : <BarGauge theme={theme} value={value.display} field={value.field} width={width} height={height} itemSpacing={8}
          display={value.view?.getFieldDisplayProcessor(value.colIndex)} orientation={options.orientation} lcdCellWidth={12}
          displayMode={options.displayMode} namePlacement={options.namePlacement} text={options.text} showUnfilled={options.showUnfilled} alignmentFactors={alignmentFactors} />} />;
}

function Body(shown: Shown & { width: number; height: number }) {
  const { panel, frames, width, height } = shown;
  if (panel.type === 'table') return <TableNG data={frames[0]} width={width} height={height} />;
  if (panel.type === 'timeseries' && frames.length) return <Graph {...shown} />;
  if (panel.type !== 'timeseries') return <Numbers {...shown} />;
  const text = panel.fieldConfig.defaults.noValue ?? 'No data';
  return <div style={{ height, display: 'grid', placeItems: 'center', color: theme.colors.text.secondary }}>{text}</div>;
}

class Guard extends React.Component<{ children: React.ReactNode }, { error?: unknown }> {
  state: { error?: unknown } = {};
  static getDerivedStateFromError(error: unknown) { return { error }; }
  render() { return this.state.error ? <div className="failed">{String(this.state.error)}</div> : this.props.children; }
}

function Panel(shown: Shown) {
  const { panel } = shown, { x, y, w, h } = panel.gridPos, column = (WIDTH - 2 * MARGIN + GAP) / 24;
  const width = w * column - GAP, height = h * (CELL + GAP) - GAP;
  const style: React.CSSProperties = { position: 'absolute', left: x * column, top: y * (CELL + GAP), width, height };
  if (panel.type === 'row') return <div style={{ ...style, paddingTop: 4, fontWeight: 500 }}><Icon name="angle-down" /> {panel.title}</div>;
  return <div style={style} className="panel" data-title={panel.title}>
    <PanelChrome title={panel.title} description={panel.description} width={width} height={height}
      padding={panel.type === 'table' ? 'none' : 'md'}
      titleItems={<PanelChrome.TitleItem><Icon name="external-link-alt" /></PanelChrome.TitleItem>}>
      {(inner, high) => <Guard><Body {...shown} width={inner} height={high} /></Guard>}
    </PanelChrome>
  </div>;
}

/* What is wrong with a panel: an error, an empty panel, a title or a value that is cut or too small to read. */
function problemsOf(node: HTMLElement, { panel, frames, error }: Shown): string[] {
  const failed = error ?? node.querySelector('.failed')?.textContent;
  const values = frames.flatMap((frame) => frame.fields.filter((field) => field.type === FieldType.number)
    .flatMap((field) => [...field.values]));
  const none = panel.fieldConfig.defaults.noValue ? `no data, it says "${panel.fieldConfig.defaults.noValue}"` : 'no data';
  const isCut = (of: Element) => of.scrollWidth > of.clientWidth + 1;
  const small = [...node.querySelectorAll('span')].some((span) => panel.type === 'stat' && span.textContent && !span.children.length
    && parseFloat(getComputedStyle(span).fontSize) < 9);
  return [
    ...(failed ? [failed] : []), ...(values.some(Number.isFinite) ? [] : [none]),
    ...([...node.querySelectorAll('h2')].some(isCut) ? ['the title is cut'] : []),
    ...(panel.type === 'bargauge' && [...node.querySelectorAll('div')].some((div) => isCut(div)
      && getComputedStyle(div).textOverflow === 'ellipsis') ? ['the name of a bar is cut'] : []),
    ...(small ? ['a number is too small to read'] : []),
    ...(panel.exemplars?.length && !dots.get(panel.title) ? ['no dot of a trace is drawn'] : []),
  ];
}

let drawn: Shown[] = [];

async function draw(board: any): Promise<void> {
  await initPluginTranslations('grafana');
  drawn = await Promise.all(board.panels.map(async (panel: any) => {
    const one = { panel, board, marks: board.marks, frames: [] };
    if (panel.type === 'row') return one;
    try {
      return { ...one, frames: await prepared(panel, board) };
    } catch (error) {
      return { ...one, error: String(error) };
    }
  }));
  const rows = Math.max(...board.panels.map(({ gridPos }: any) => gridPos.y + gridPos.h));
  const root = createRoot(document.getElementById('board')!);
  flushSync(() => root.render(<ThemeContext.Provider value={theme}><GlobalStyles />.</ThemeContext.Provider>));
  await Promise.all([400, 500].map((weight) => document.fonts.load(`${weight} 14px Inter`)));
  flushSync(() => root.render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ width: WIDTH, height: HEAD + rows * (CELL + GAP), padding: `0 ${MARGIN}px`, boxSizing: 'border-box',
        background: theme.colors.background.canvas }}>
        <div style={{ height: HEAD, display: 'flex', alignItems: 'center', justifyContent: 'space-between' }}>
          <h3 style={{ margin: 0 }}>{board.title}</h3><span style={{ color: theme.colors.text.secondary }}>{board.says}</span>
        </div>
        <div style={{ position: 'relative' }}>{drawn.map((one) => <Panel key={one.panel.id} {...one} />)}</div>
      </div>
    </ThemeContext.Provider>,
  ));
}

function problems(): string[] {
  return drawn.filter(({ panel }) => panel.type !== 'row').flatMap((one) => {
    const node = document.querySelector<HTMLElement>(`[data-title="${CSS.escape(one.panel.title)}"]`)!;
    return problemsOf(node, one).map((problem) => `${one.board.title}: ${one.panel.title}: ${problem}`);
  });
}
Object.assign(window, { draw, problems });
